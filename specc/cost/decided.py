"""Every value that a spec decides, and where each comes from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel

from specc.components.norm import Norm
from specc.source import Path, find, shown
from specc.spec.core import Branch, Embed, Frames, Head, Layout, Patches, Run, Spec, Stack, Sublayer
from specc.spec.stated import stated


@dataclass(frozen=True)
class Decided:
    """A key, its value, and its origin: a line of the spec, or how the default came about."""

    key: str
    value: str
    origin: str


def decided(spec: Spec, layout: Layout, starts: tuple[str, ...]) -> list[Decided]:
    """In the order of the document: dimensions, embedding, blocks, layout. `starts`: first layers of later stages."""
    rows = [*_model(spec), *(row for stack in spec.model.stacks for row in _stack(spec, stack))]
    return [*rows, *_layout(spec, layout, starts)]


def _row(spec: Spec, path: Path | None, value: object, default: str = "", key: str = "") -> Decided:
    """The row of a value that the document may state at a path."""
    node = None if spec.root is None or path is None else find(spec.root, path)
    origin = f"line {node.span.place[0]}" if node is not None else "default" + f": {default}" * bool(default)
    if node is not None and isinstance(node.value, str) and isinstance(value, float):
        origin += f": {shown(node.value)}"
    return Decided(key or ".".join(map(str, path or ())), _shown(value), origin)


def _shown(value: object) -> str:
    if value is None or value == ():
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, tuple):
        return ", ".join(map(str, value))  # pyright: ignore[reportUnknownArgumentType]
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _model(spec: Spec) -> Iterator[Decided]:
    model = spec.model
    yield _row(spec, ("d_model",), model.d_model)
    yield _row(spec, ("vocab",), model.vocab or None)
    made = len(model.stacks) == 1 and model.embed_of(model.stacks[0]).stem is not None
    yield _row(spec, ("max_seq",), model.max_seq, "what the stem makes" if made else "")
    yield _row(spec, ("pad",), model.pad)
    if spec.common is not None:
        yield from _norm(spec, ("norm",), spec.common.norm, "norm")
        yield _row(spec, ("norm", "placement"), spec.common.placement)
        for key, default in (("base", "stream"), ("alpha", 1.0), ("beta", 1.0)):
            node = None if spec.root is None else find(spec.root, ("residual", key))
            yield _row(spec, ("residual", key), default if node is None or node.value is None else node.value)
        yield _row(spec, ("dropout",), spec.common.dropout)
        node = None if spec.root is None else find(spec.root, ("drop_path",))
        yield _row(spec, ("drop_path",), 0.0 if node is None or node.value is None else node.value)
    yield _row(spec, ("embedding", "scale"), model.embed.scale)
    yield from _ends(spec)
    for key in ("label_smoothing", "z_loss"):
        yield _row(spec, ("loss", key), getattr(model.loss, key))
    yield _row(spec, ("init", "kind"), model.init.kind)
    if model.init.kind in ("normal", "uniform"):
        yield _row(spec, ("init", "std"), model.init.std)
    yield _row(spec, ("init", "truncate"), model.init.truncate)
    if model.init.kind == "constant":
        yield _row(spec, ("init", "value"), model.init.value)
    for name, start in model.init.parameters:
        at = ("init", "parameters", name)
        values = {"kind": start.kind, "std": start.std, "truncate": start.truncate, "value": start.value}
        yield from _stated(spec, at, values, ".".join(at))
    yield _row(spec, ("init", "parameters", "embedding", "std"), model.init.embedding_std, "init.std")
    yield _row(spec, ("init", "depth_scaled"), model.init.depth_scaled)


def _ends(spec: Spec) -> Iterator[Decided]:
    """Embedding and head; parts that are not there have one row."""
    embed, head = spec.model.embed, spec.model.head
    project = embed.project
    if embed.stem is None:
        yield _row(spec, ("embedding", "stem"), None)
    else:
        yield from _stem(spec, ("embedding",), embed)
    yield from _positions(spec, ("embedding", "positions"), embed)
    yield _row(spec, ("embedding", "types"), embed.types)
    yield from _part_norm(spec, ("embedding", "norm"), embed.norm)
    at = ("embedding", "project")
    node = None if spec.root is None else find(spec.root, at)
    plain = node is not None and not isinstance(node.value, dict)
    if project is None:
        yield _row(spec, at, None)
    else:
        yield _row(spec, at if plain else (*at, "dim"), project.dim, key="embedding.project.dim")
        yield _row(spec, None if plain else (*at, "bias"), project.bias, key="embedding.project.bias")
        when = "tokens" if project.first else "end"
        yield _row(spec, None if plain else (*at, "at"), when, key="embedding.project.at")
    yield _row(spec, ("embedding", "tied"), embed.tied)
    yield _row(spec, ("embedding", "dropout"), embed.dropout, "dropout")
    yield from _head(spec, head, "d_model" if project is None or head.kind != "lm" else "embedding.project")


def _stem(spec: Spec, at: Path, embed: Embed) -> Iterator[Decided]:
    stem = embed.stem
    assert stem is not None
    patches = isinstance(stem, Patches)
    yield _row(spec, (*at, "stem", "kind"), "patches" if patches else "frames")
    for n, conv in enumerate(() if isinstance(stem, Patches) else stem.convs):
        for key in ("width", "stride"):
            yield _row(spec, (*at, "stem", "convs", n, key), getattr(conv, key))
    for key in ("channels", "image", "patch", "bias") if patches else ("channels", "activation", "bias"):
        yield _row(spec, (*at, "stem", key), getattr(stem, key))
    for key in ("class_token", "registers"):
        yield _row(spec, (*at, key), getattr(embed, key))


def _head(spec: Spec, head: Head, width: str) -> Iterator[Decided]:
    """`width`: what decides how many features its last linear reads."""
    transform = head.transform
    if head.kind == "none":
        yield _row(spec, ("head",), "none")
        return
    yield _row(spec, ("head", "kind"), head.kind)
    if head.kind == "classes":
        yield _row(spec, ("head", "classes"), head.rows)
    if head.kind == "vector":
        yield _row(spec, ("head", "size"), head.rows or None, "what is there")
        yield _row(spec, ("head", "normalize"), head.normalize)
    if head.kind != "lm":
        pool = head.pool
        if pool is None or pool.token is None:
            yield _row(spec, ("head", "pool"), pool and pool.how)
        else:
            yield _row(spec, ("head", "pool", "kind"), "token")
            yield _row(spec, ("head", "pool", "token"), pool.token)
        yield _row(spec, ("head", "dropout"), head.dropout)
    more, at = spec.model.multi_token, ("head", "multi_token")
    if more is not None:
        yield _row(spec, (*at, "steps"), more.steps)
        yield _row(spec, (*at, "block"), tuple(block.name for block in more.blocks))
        yield _row(spec, (*at, "loss"), more.loss)
    for key in ("bias", "scale", "softcap"):
        yield _row(spec, ("head", key), getattr(head, key))
    yield _row(spec, ("head", "dim"), head.dim, width)
    if transform is None:
        yield _row(spec, ("head", "transform"), None)
    else:
        yield _row(spec, ("head", "transform", "activation"), transform.activation)
        yield from _part_norm(spec, ("head", "transform", "norm"), transform.norm)
        yield _row(spec, ("head", "transform", "bias"), transform.bias)


def _positions(spec: Spec, at: Path, embed: Embed) -> Iterator[Decided]:
    """Keys of a mapping, as far as its kind has them; of a word the kind alone."""
    of, rows = embed.positions, "max_seq" if embed.places is None else "what the stem makes"
    node, key = None if spec.root is None else find(spec.root, at), ".".join(map(str, at))
    if of is None or node is None or not isinstance(node.value, dict):
        yield _row(spec, at, None if of is None else of.kind)
        return
    yield _row(spec, (*at, "kind"), of.kind)
    if of.kind == "learned" or isinstance(embed.stem, Frames):
        yield _row(spec, (*at, "size"), of.size, rows, f"{key}.size")
    yield _row(spec, (*at, "offset"), of.offset)
    if of.kind == "sinusoidal":
        yield _row(spec, (*at, "order"), "halves" if of.halves else "interleaved")
        yield _row(spec, (*at, "endpoint"), of.endpoint)
    yield _row(spec, (*at, "skip_pad"), of.skip_pad)


def _part_norm(spec: Spec, at: Path, norm: Norm | None) -> Iterator[Decided]:
    """None, the model's, or the keys of one that differs."""
    node = None if spec.root is None else find(spec.root, at)
    if norm is not None and node is not None and isinstance(node.value, dict):
        yield from _norm(spec, at, norm, ".".join(map(str, at)))
    else:
        yield _row(spec, at, "none" if norm is None else "as norm")


def _norm(spec: Spec, path: Path, norm: Norm, key: str) -> Iterator[Decided]:
    """Its keys; those of a norm that changes the model's stand there."""
    changed = path != ("norm",) and spec.common is not None and norm.kind == spec.common.norm.kind
    for name in Norm.model_fields:
        own = None if spec.root is None else find(spec.root, (*path, name))
        place = ("norm", name) if own is None and changed else (*path, name)
        yield _row(spec, place, getattr(norm, name), f"{norm.kind} norm" if name == "bias" else "", f"{key}.{name}")


def _stack(spec: Spec, stack: Stack) -> Iterator[Decided]:
    role = stack.role
    yield _row(spec, (role, "layers"), stack.layers)
    if len(spec.model.stacks) > 1:
        yield _row(spec, (role, "d_model"), spec.model.width(stack))
    for key in ("pattern", "patterns"):
        if spec.root is not None and find(spec.root, (role, key)) is not None:
            yield _row(spec, (role, key), _pattern(stack.runs))
    at = (role, "embedding")
    if stack.embed is not None and spec.root is not None:
        own = {key: getattr(stack.embed, key) for key in ("scale", "dropout")}
        yield from _stated(spec, at, own, f"{role}.embedding")
        if find(spec.root, (*at, "stem")) is not None:
            yield from _stem(spec, at, stack.embed)
        if find(spec.root, (*at, "positions")) is not None:
            yield from _positions(spec, (*at, "positions"), stack.embed)
        if find(spec.root, (*at, "norm")) is not None:
            yield from _part_norm(spec, (*at, "norm"), stack.embed.norm)
    for key in (*Norm.model_fields, "placement"):
        node = None if spec.root is None else find(spec.root, (role, "norm", key))
        if node is not None:
            yield _row(spec, (role, "norm", key), node.value)
    yield _row(spec, (role, "final_norm"), stack.final_norm is not None, "by norm.placement")
    told: set[str] = set()
    for block in dict.fromkeys(block for run in stack.runs for block in run.blocks[: run.layers]):
        if block.name in told:
            continue  # the same block with other numbers, which are formulas of the layer
        told.add(block.name)
        prefix = role if block.name == "block" else f"{role}.{block.name}"
        yield from (_row(spec, ("blocks", name), f"as {block.name}") for name in block.also if name != block.name)
        for number, sublayer in enumerate(block.sublayers, 1):
            yield from _sublayer(spec, sublayer, f"{prefix}.sublayer{number}")
            for branch in sublayer.branches:
                alone = sublayer.norm if len(sublayer.branches) == 1 else None
                yield from _branch(spec, stack, f"{prefix}.{branch.name}", branch, branch.pre or alone)


def _pattern(runs: tuple[Run, ...]) -> str:
    """`0: wide; 1..7: local, local, global, the last repeat cut short`."""
    words: list[str] = []
    first = 0
    for run in runs:
        names = [block.name for block in run.blocks]
        cut = ", the last repeat cut short" if run.layers % len(names) else ""
        layers = f"{first}..{first + run.layers - 1}" if run.layers > 1 else f"{first}"
        words.append(f"{layers}: {', '.join(names)}{cut}")
        first += run.layers
    return "; ".join(words)


def _sublayer(spec: Spec, sublayer: Sublayer, key: str) -> Iterator[Decided]:
    """What it says of its own: all else is as the model's norm, its placement and `residual` say."""
    yield from _stated_norms(spec, sublayer.at, {"norm": sublayer.norm, "after": sublayer.after}, key)
    if len(sublayer.branches) > 1:
        yield from _stated_norms(spec, sublayer.at, {"post": sublayer.post}, key)
    values = {name: getattr(sublayer, name) for name in ("base", "alpha", "beta")}
    yield from _stated(
        spec, sublayer.at, {"placement": None, **values, "add": sublayer.add, "after_scale": sublayer.after_scale}, key
    )
    for name in ("alpha", "beta"):
        node = None if spec.root is None else find(spec.root, ("residual", name))
        own = None if spec.root is None or not sublayer.at else find(spec.root, (*sublayer.at, name))
        if own is None and node is not None and isinstance(node.value, str):
            yield _row(spec, ("residual", name), values[name], key=f"{key}.{name}")


def _stated_norms(spec: Spec, at: Path, norms: Mapping[str, Norm | None], key: str) -> Iterator[Decided]:
    """Norms at these keys of a mapping, as far as it states them: none, the model's, or the model's changed."""
    for name, norm in norms.items():
        node = None if spec.root is None or not at else find(spec.root, (*at, name))
        if norm is not None and node is not None and isinstance(node.value, dict):
            yield from _norm(spec, (*at, name), norm, f"{key}.{name}")
        elif node is not None:
            yield _row(spec, (*at, name), "none" if norm is None else "as norm", key=f"{key}.{name}")


def _stated(spec: Spec, at: Path, values: Mapping[str, object], key: str) -> Iterator[Decided]:
    """Values at these keys of a mapping, as far as it states them; None: as written."""
    for name, value in values.items():
        node = None if spec.root is None or not at else find(spec.root, (*at, name))
        if node is not None and node.value is not None:
            yield _row(spec, (*at, name), node.value if value is None else value, key=f"{key}.{name}")


def _branch(spec: Spec, stack: Stack, key: str, branch: Branch, pre: Norm | None) -> Iterator[Decided]:
    yield from _component(spec, stack, key, branch, branch.component, ())
    yield from _stated_norms(spec, branch.around, {"pre": pre, "post": branch.post}, key)
    values = {name: getattr(branch, name) for name in ("in_scale", "out_scale", "layerscale", "into")}
    yield from _stated(spec, branch.around, values, key)
    yield from _stated(spec, branch.around, {"dropout": branch.dropout}, f"{key}.output")


def _component(spec: Spec, stack: Stack, key: str, branch: Branch, config: BaseModel, path: Path) -> Iterator[Decided]:
    """Values of a component, and of the mappings in it."""
    defaults: Mapping[str, tuple[object, str]] = {}
    if not path:
        defaults = spec.model.tables.component(branch.component).decided(branch.component, stack.role)
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _component(spec, stack, f"{key}.{name}", branch, value, (*path, name))
            continue
        place = None if spec.root is None else stated(spec.root, branch, (*path, name))
        value, default = defaults.get(name, (value, ""))
        yield _row(spec, place, value, default, f"{key}.{name}")


def _layout(spec: Spec, layout: Layout, starts: tuple[str, ...]) -> Iterator[Decided]:
    at = layout.at or ("layout",)
    yield _row(spec, (*at, "tp"), layout.tp)
    yield _row(spec, (*at, "sequence_parallel"), layout.sequence_parallel)
    yield _row(spec, (*at, "generate"), layout.generate)
    yield _row(spec, (*at, "dp"), layout.dp)
    more = [axis for axis in layout.tables.axes if axis not in ("dp", "tp")]
    yield from (_row(spec, (*at, axis), layout.size(axis)) for axis in more)
    pp, key = (*at, "pp"), ".".join(map(str, (*at, "pp")))
    node = None if spec.root is None else find(spec.root, pp)
    plain = node is not None and not isinstance(node.value, dict)
    yield _row(spec, pp if plain else (*pp, "stages"), layout.pp.stages, key=f"{key}.stages")
    if layout.pp.stages > 1:
        several = "with several stages a rank" if layout.pp.per_rank > 1 else ""
        yield _row(spec, (*pp, "per_rank"), layout.pp.per_rank)
        yield _row(spec, (*pp, "schedule"), layout.pp.schedule, several)
        yield _row(spec, (*pp, "starts") if layout.pp.starts else None, starts, "balanced by flops", f"{key}.starts")
    default = "stages" if layout.pp.stages > 1 else ""
    yield _row(spec, (*at, "microbatches"), layout.microbatches, default)
    yield _row(spec, (*at, "precision"), layout.precision)
    yield from (_row(spec, (*at, "rules", axis), mesh) for axis, mesh in layout.rules)
    saved = layout.checkpoint
    every = "every layer" if saved.every == 1 else f"layers whose number is a multiple of {saved.every}"
    text = f"every layer but for {', '.join(saved.save)}" if saved.save else every if saved.every else "none"
    yield _row(spec, (*at, "checkpoint"), text)
