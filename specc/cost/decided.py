"""Every value that a spec decides, and where each comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from specc.source import Path, find
from specc.spec.core import Branch, Layout, Spec, Stack


@dataclass(frozen=True)
class Decided:
    """A key, its value, and its origin: a line of the spec, or how the default came about."""

    key: str
    value: str
    origin: str


def decided(spec: Spec, layout: Layout) -> list[Decided]:
    """In the order of the document: dimensions, embedding, blocks, layout."""
    return [*_model(spec), *(row for stack in spec.model.stacks for row in _stack(spec, stack)), *_layout(spec, layout)]


def _row(spec: Spec, path: Path, value: object, default: str = "default", key: str | None = None) -> Decided:
    node = None if spec.root is None else find(spec.root, path)
    origin = default if node is None else f"{spec.file}:{node.span.place[0]}"
    return Decided(key or ".".join(map(str, path)), _shown(value), origin)


def _shown(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"  # pyright: ignore[reportUnknownArgumentType]
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _model(spec: Spec) -> Iterator[Decided]:
    model = spec.model
    for key in ("d_model", "vocab", "max_seq", "pad"):
        yield _row(spec, (key,), getattr(model, key))
    yield _row(spec, ("embedding", "scale"), model.embed.scale)
    yield _row(spec, ("embedding", "positions"), model.embed.positions)
    yield _row(spec, ("embedding", "tied"), model.embed.tied)
    yield _row(spec, ("embedding", "dropout"), model.embed.dropout, "default: dropout")
    yield _row(spec, ("head", "bias"), model.head_bias)
    yield _row(spec, ("init", "kind"), model.init.kind)
    yield _row(spec, ("init", "std"), model.init.std)
    yield _row(spec, ("init", "embedding_std"), model.init.embedding_std, "default: init.std")
    yield _row(spec, ("init", "depth_scaled"), model.init.depth_scaled)


def _stack(spec: Spec, stack: Stack) -> Iterator[Decided]:
    yield _row(spec, (stack.role, "layers"), stack.layers)
    norm = "none" if stack.final_norm is None else stack.final_norm.kind
    yield _row(spec, (stack.role, "final_norm"), norm, "default: by norm.placement")
    for block in dict.fromkeys(block for run in stack.runs for block in run.blocks):
        prefix = stack.role if block.name == "block" else f"{stack.role}.{block.name}"
        for sublayer in block.sublayers:
            for branch in sublayer.branches:
                yield from _branch(spec, prefix, branch)
                placement = {"pre": branch.pre or sublayer.norm, "post": branch.post, "after": sublayer.after}
                for where, config in placement.items():
                    if config is not None:
                        text = f"{config.kind}, eps {config.eps:g}{', bias' if config.bias else ''}"
                        yield _row(spec, ("norm",), text, "default", f"{prefix}.{branch.name} norm {where}")


DERIVED = {"kv_heads": "default: heads", "head_dim": "default: d_model / heads", "causal": "default: in a decoder"}


def _branch(spec: Spec, prefix: str, branch: Branch) -> Iterator[Decided]:
    for key in type(branch.component).model_fields:
        value = getattr(branch.component, key)
        path = (*branch.at, key)
        name = f"{prefix}.{branch.name}.{key}"
        if isinstance(value, BaseModel):
            for inner in type(value).model_fields:
                yield _row(spec, (*path, inner), _flat(getattr(value, inner)), "default", f"{name}.{inner}")
        else:
            yield _row(spec, path, value, DERIVED.get(key, "default"), name)
    yield _row(spec, ("dropout",), branch.dropout, "default", f"{prefix}.{branch.name} output dropout")


def _flat(value: object) -> object:
    if isinstance(value, BaseModel):
        return ", ".join(f"{key} {getattr(value, key)}" for key in type(value).model_fields)
    return value


def _layout(spec: Spec, layout: Layout) -> Iterator[Decided]:
    at = layout.at or ("layout",)
    yield _row(spec, (*at, "tp"), layout.tp)
    yield _row(spec, (*at, "sequence_parallel"), layout.sequence_parallel)
    yield _row(spec, (*at, "dp"), layout.dp)
    pp = (*at, "pp")
    plain = spec.root is not None and (node := find(spec.root, pp)) is not None and isinstance(node.value, int)
    yield _row(spec, pp if plain else (*pp, "stages"), layout.pp.stages, key=".".join(map(str, (*pp, "stages"))))
    yield _row(spec, (*pp, "schedule"), layout.pp.schedule)
    yield _row(spec, (*pp, "microbatches"), layout.pp.microbatches, "default: stages")
    yield _row(spec, (*pp, "starts"), layout.pp.starts or "balanced", "default: by flops")
    saved = layout.checkpoint
    text = (
        f"all but {', '.join(saved.save)}" if saved.save else "none" if saved.every is None else f"every {saved.every}"
    )
    yield _row(spec, (*at, "checkpoint"), text)
