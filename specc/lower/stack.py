"""Stacks, blocks and sublayers: repeats of residual updates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from specc.components import norm
from specc.components.base import Config, Given, Need, Table, Tokens
from specc.ir.op import Init, Layer, Ref
from specc.ir.types import Axis
from specc.lower.builder import TERMS, Builder
from specc.spec.core import Block, Branch, Stack, Sublayer


@dataclass(frozen=True)
class Around:
    """Values that every block of a stack may use, and names of those that go from layer to layer beside the stream."""

    features: Axis
    given: Given
    carried: tuple[str, ...] = ()


def lower_stack(
    b: Builder,
    stack: Stack,
    x: Ref,
    tokens: Tokens,
    memory: Ref | None,
    memory_mask: Ref | None,
    features: Axis,
    more: tuple[Block, ...] = (),
) -> tuple[Ref, Around]:
    """x [batch, seq, d_model], embedded from tokens, through all layers and the final norm; and what blocks may use,
    those of `more` too, which stand behind."""
    b.at = stack.at
    given = _given(b, stack, tokens, memory, memory_mask, more)
    first = 0
    b.residual_updates = _residual_updates(stack)
    for number, run in enumerate(stack.runs):
        period = min(len(run.blocks), run.layers)
        around = Around(features, given, _carried(b, run.blocks[:period]))
        if TERMS in around.carried and TERMS not in b.named:
            b.named[TERMS] = b.op("zero", x, hint="terms")
        repeat = b.op(
            "repeat",
            x,
            *(b.named[name] for name in around.carried),
            name=f"{stack.path}{number or ''}",
            path=stack.path,
            start=first,
            n=run.layers,
            period=period,
            run=number,
            **_shared(stack, run.blocks[:period], first),
        )
        x = repeat
        b.named |= {name: Ref(repeat.op, n) for n, name in enumerate(around.carried, 1)}
        before = dict(b.named)
        # layer i runs the block at i % period, wherever in a period the run starts
        for n, block in enumerate(run.blocks[:period]):
            x = _lower_block(b, stack, block, Layer((first + n) % period, number), x, around)
        b.at = stack.at
        hint = "memory" if stack.path == "encoder" and run is stack.runs[-1] and stack.final_norm is None else "x"
        leaving = (*around.carried, *(name for name in _new(b, before) if name not in around.carried))
        values = (x, *(b.named[name] for name in leaving))
        x = b.op("end", *values, name=f"{stack.path}{number or ''}_end", hint=hint, repeat=repeat.op)
        b.named |= {name: Ref(x.op, n) for n, name in enumerate(leaving, 1)}
        first += run.layers
    if stack.final_norm is not None:
        alone = stack.path == "layers"
        name, hint = ("norm" if alone else f"{stack.path}_norm"), ("memory" if stack.path == "encoder" else "x")
        x = norm.lower(stack.final_norm, b, x, name, features, hint)
    return x, Around(features, given)


def _shared(stack: Stack, blocks: tuple[Block, ...], first: int) -> dict[str, Any]:
    """Names of blocks whose layers have one set of parameters, by the place in the period; nothing where none has."""
    names = {(first + n) % len(blocks): block.name * (block.name in stack.shared) for n, block in enumerate(blocks)}
    return {"shared": tuple(names[offset] for offset in range(len(blocks)))} if any(names.values()) else {}


def _carried(b: Builder, blocks: tuple[Block, ...]) -> tuple[str, ...]:
    """Names of values that a layer of the run takes before another gives them."""
    configs = [config for block in blocks for config in _components(block)]
    given: dict[str, None] = {}
    early: dict[str, None] = {}
    for config in configs:
        component = b.tables.component(config)
        terms = (TERMS,) * component.adds_to_loss(config)
        early |= dict.fromkeys(name for name in (*component.takes(config), *terms) if name not in given)
        given |= dict.fromkeys((*component.gives(config), *terms))
    return tuple(name for name in early if name in given)


def _components(block: Block) -> list[Config]:
    return [branch.component for sublayer in block.sublayers for branch in sublayer.branches]


def _new(b: Builder, before: dict[str, Ref]) -> list[str]:
    """Names that got other values since."""
    return [name for name, ref in b.named.items() if before.get(name) != ref]


def _residual_updates(stack: Stack) -> int:
    return sum(
        len(run.blocks[i].sublayers) * ((run.layers - i + len(run.blocks) - 1) // len(run.blocks))
        for run in stack.runs
        for i in range(len(run.blocks))
    )


def _given(
    b: Builder,
    stack: Stack,
    tokens: Tokens,
    memory: Ref | None,
    memory_mask: Ref | None,
    more: tuple[Block, ...],
) -> Given:
    """Memory and masks as far as they are there, and the tables of all components."""
    known: dict[Need, Ref | None] = {"memory": memory, "memory_mask": memory_mask, "own_mask": tokens.mask}
    blocks = dict.fromkeys((*(block for run in stack.runs for block in run.blocks), *more))
    branches = [branch for block in blocks for sublayer in block.sublayers for branch in sublayer.branches]
    if any("documents" in b.tables.component(branch.component).reads for branch in branches):
        known["documents"] = _documents(b, tokens)
    given: dict[Need, Ref] = {need: ref for need, ref in known.items() if ref is not None}
    return given | _tables(b, branches, tokens)


def _documents(b: Builder, tokens: Tokens) -> Ref | None:
    """Where that of each token starts; a run of padding is one, too."""
    parts = tokens.group if tokens.real is None else tokens.real
    return tokens.first if parts is None else b.op("document_starts", parts, hint="first")


def _tables(b: Builder, branches: list[Branch], tokens: Tokens) -> dict[Table, Ref]:
    """Each table that these need; where several have a name, the mark or else a number follows it."""
    asked = (table for item in branches for table in b.tables.component(item.component).tables(item.component))
    tables = dict.fromkeys(part for table in asked for part in _parts(table))
    found: dict[Table, Ref] = {}
    for table in tables:
        same = [other for other in tables if other.name == table.name]
        distinct = len({other.mark for other in same}) == len(same)
        mark = table.mark if distinct else str(same.index(table))
        hint = f"{table.name}_{mark}" if len(same) > 1 else table.name
        found[table] = table.lower(table.config, b, tokens, table.size, hint, *(found[part] for part in table.of))
    return found


def _parts(table: Table) -> Iterator[Table]:
    """Those that it is made of, and itself."""
    for part in table.of:
        yield from _parts(part)
    yield table


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.replace("-", "_").split("_"))


def _class_names(kind: str, stack: Stack, block: Block, variant: str = "") -> tuple[str, ...]:
    """`Attention`, or where that is taken `LocalAttention`, `DecoderAttention`, `DecoderLocalAttention`."""
    role = "" if stack.path == "layers" else _camel(stack.path)
    own = "" if block.name == "block" else _camel(block.name)
    return tuple(dict.fromkeys((kind, variant + kind, own + kind, role + kind, role + own + kind)))


def _lower_block(b: Builder, stack: Stack, block: Block, layer: Layer, x: Ref, around: Around) -> Ref:
    outer = b.path
    b.path, b.shared = (*outer, stack.path), block.name * (block.name in stack.shared)
    before = dict(b.named)
    carried = [before[name] for name in around.carried]
    named = [ref for name, ref in before.items() if name not in around.carried]
    with b.scope(layer, (x, *carried, *named, *around.given.values()), _class_names("Block", stack, block)):
        x = _sublayers(b, stack, block, x, around)
        new = (name for name in _new(b, before) if name not in around.carried)
        b.returns(x, *(b.named[name] for name in (*around.carried, *new)))
    b.path, b.shared = outer, ""
    return x


def lower_block(b: Builder, stack: Stack, block: Block, name: str, x: Ref, around: Around) -> Ref:
    """A block that is called once, in a module of that name."""
    terms = [b.named[TERMS]] if TERMS in b.named else []
    with b.scope(name, (x, *terms, *around.given.values()), _class_names("Block", stack, block)):
        x = _sublayers(b, stack, block, x, around)
        b.returns(x, *((b.named[TERMS],) if TERMS in b.named else ()))
    return x


def _sublayers(b: Builder, stack: Stack, block: Block, x: Ref, around: Around) -> Ref:
    shared = joint = 0
    kept: dict[str, Ref] = {}
    for sublayer in block.sublayers:
        shared += sublayer.norm is not None
        joint += sublayer.post is not None
        names = (_numbered("norm", shared), _numbered("parallel_post_norm", joint))
        x = _lower_sublayer(b, stack, block, sublayer, x, around, kept, *names)
        b.settle()
    return x


def _numbered(name: str, number: int) -> str:
    return f"{name}{number if number > 1 else ''}"


def _lower_sublayer(
    b: Builder,
    stack: Stack,
    block: Block,
    sublayer: Sublayer,
    x: Ref,
    around: Around,
    kept: dict[str, Ref],
    shared: str,
    joint: str,
) -> Ref:
    """`kept` by name; `shared` and `joint` are names of the norm of all branches and of the norm of their sum."""
    first = sublayer.branches[0].name
    alone = len(sublayer.branches) == 1 and sublayer.branches[0].pre is None
    shared = f"{first}_norm" if alone else shared
    hint = "x" if len(sublayer.branches) == 1 else "normed"
    shared_input = x if sublayer.norm is None else norm.lower(sublayer.norm, b, x, shared, around.features, hint)
    outs = [_lower_branch(b, stack, block, branch, x, shared_input, around) for branch in sublayer.branches]
    here = [out for branch, out in zip(sublayer.branches, outs, strict=True) if branch.into is None]
    total = _sum(b, here)
    if total is not None and sublayer.post is not None:
        total = norm.lower(sublayer.post, b, total, joint, around.features)
    total = _sum(b, [*(() if total is None else (total,)), *(kept[name] for name in sublayer.add)])
    kept |= {branch.into: out for branch, out in zip(sublayer.branches, outs, strict=True) if branch.into is not None}
    base = _scaled(b, shared_input if sublayer.base == "normed" else x, sublayer.alpha)
    x = base if total is None else b.op("add", base, _scaled(b, total, sublayer.beta), name=f"{first}_residual")
    if sublayer.after is not None:
        taken = sublayer.norm is not None or any(branch.pre for branch in sublayer.branches)
        name = f"{first}_after_norm" if taken else f"{first}_norm"
        x = norm.lower(sublayer.after, b, x, name, around.features)
    if sublayer.after_scale is None:
        return x
    one, name = Axis("one", 1), f"{first}_after_scale"
    scale = b.param(name, "weight", (one,), Init("constant", sublayer.after_scale), "channel_scale")
    return b.op("channel_scale", x, name=name, params=(scale,))


def _sum(b: Builder, values: list[Ref]) -> Ref | None:
    total = values[0] if values else None
    for value in values[1:]:
        total = value if total is None else b.op("add", total, value)
    return total


def _scaled(b: Builder, x: Ref, factor: float) -> Ref:
    return x if factor == 1.0 else b.op("scale", x, factor=factor)


def _lower_branch(
    b: Builder, stack: Stack, block: Block, branch: Branch, x: Ref, shared_input: Ref, around: Around
) -> Ref:
    b.at = branch.at
    features = around.features
    inner = shared_input if branch.pre is None else norm.lower(branch.pre, b, x, f"{branch.name}_norm", features)
    inner = _scaled(b, inner, branch.in_scale)
    config = branch.component
    component = b.tables.component(config)
    needed: tuple[Need, ...] = (*component.reads, *component.takes(config), *component.tables(config))
    known: Given = {**b.named, **around.given}
    given: Given = {need: known[need] for need in needed if need in known}
    if component.streamed(config) and inner != x:
        given = {**given, "stream": x}
    if "memory" in component.reads and "memory" not in given:
        raise ValueError(f"{branch.at}: {branch.name} without an encoder")
    names = _class_names(component.class_name, stack, block, component.variant(config))
    with b.scope(branch.name, (inner, *given.values()), names, component.verb, component.key):
        before = dict(b.named)
        out = component.lower(config, b, inner, given, features)
        b.returns(out, *b.left, *(b.named[name] for name in _new(b, before)))
    if branch.post is not None:
        out = norm.lower(branch.post, b, out, f"{branch.name}_post_norm", features)
    if branch.layerscale is not None:
        init = Init("constant", branch.layerscale)
        scale = b.param(f"{branch.name}_scale", "weight", (features,), init, "channel_scale")
        out = b.op("channel_scale", out, name=f"{branch.name}_scale", params=(scale,))
    out = _scaled(b, out, branch.out_scale)
    out = b.op("dropout", out, rate=branch.dropout) if branch.dropout else out
    return b.op("drop_path", out, rate=branch.drop_path) if branch.drop_path else out
