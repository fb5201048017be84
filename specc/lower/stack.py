"""Stacks, blocks and sublayers: repeats of residual updates."""

from __future__ import annotations

from dataclasses import dataclass

from specc.components import attention, ffn, norm, rope
from specc.components.attention import Attention, CrossAttention
from specc.components.rope import Rope
from specc.ir.op import Init, Layer, Ref
from specc.ir.types import Axis
from specc.lower.builder import Builder
from specc.spec.core import Block, Branch, Stack, Sublayer

RopeKey = tuple[Rope, int]  # with its head_dim


@dataclass(frozen=True)
class Around:
    """Values that every block of a stack may use."""

    features: Axis
    memory: Ref | None  # the encoder's output
    mask: Ref | None  # which keys of the memory (of the encoder's own input) may be seen
    self_mask: bool  # the mask is for self-attention too
    ropes: dict[RopeKey, Ref]

    def values(self) -> tuple[Ref, ...]:
        some = [ref for ref in (self.memory, self.mask) if ref is not None]
        return (*some, *self.ropes.values())


def lower_stack(
    b: Builder, stack: Stack, x: Ref, ids: Ref, memory: Ref | None, mask: Ref | None, features: Axis, seq: str
) -> Ref:
    """x [batch, seq, d_model], embedded from ids, through all layers and the final norm."""
    b.at = stack.at
    around = Around(features, memory, mask, stack.role == "encoder", _ropes(b, stack, ids, seq))
    first = 0
    b.residual_updates = _residual_updates(stack)
    for number, run in enumerate(stack.runs):
        period = min(len(run.blocks), run.layers)
        # layer i runs the block at i % period, wherever in a period the run starts
        blocks = [run.blocks[(offset - first) % period] for offset in range(period)]
        repeat = b.op(
            "repeat",
            x,
            name=f"{stack.path}{number or ''}",
            path=stack.path,
            start=first,
            n=run.layers,
            period=period,
            run=number,
        )
        x = repeat
        for offset, block in enumerate(blocks):
            x = _lower_block(b, stack, block, Layer(offset, number), x, around)
        b.at = stack.at
        hint = "memory" if stack.path == "encoder" and run is stack.runs[-1] and stack.final_norm is None else "x"
        x = b.op("end", x, name=f"{stack.path}{number or ''}_end", hint=hint, repeat=repeat.op)
        first += run.layers
    if stack.final_norm is not None:
        alone = stack.path == "layers"
        name, hint = ("norm" if alone else f"{stack.path}_norm"), ("memory" if stack.path == "encoder" else "x")
        x = norm.lower(stack.final_norm, b, x, name, features, hint)
    return x


def _residual_updates(stack: Stack) -> int:
    return sum(
        len(run.blocks[i].sublayers) * ((run.layers - i + len(run.blocks) - 1) // len(run.blocks))
        for run in stack.runs
        for i in range(len(run.blocks))
    )


def _ropes(b: Builder, stack: Stack, ids: Ref, seq: str) -> dict[RopeKey, Ref]:
    """One table for each rope and head_dim in the stack, named by theta where there are several."""
    keys: dict[RopeKey, None] = {}
    for run in stack.runs:
        for block in run.blocks:
            for branch in (branch for sublayer in block.sublayers for branch in sublayer.branches):
                config = branch.component
                if isinstance(config, Attention) and config.rope is not None and config.head_dim is not None:
                    keys[config.rope, config.head_dim] = None
    if not keys:
        return {}
    positions = b.op("positions", ids, hint="positions", axes=(seq,))
    thetas = [key[0].theta for key in keys]
    found: dict[RopeKey, Ref] = {}
    for number, key in enumerate(keys):
        distinct = len(set(thetas)) == len(keys)
        hint = "rope" if len(keys) == 1 else f"rope_{key[0].theta:.0f}" if distinct else f"rope_{number}"
        found[key] = rope.lower(key[0], b, positions, key[1], hint)
    return found


def _camel(name: str) -> str:
    return "".join(part[:1].upper() + part[1:] for part in name.replace("-", "_").split("_"))


def _class_names(kind: str, stack: Stack, block: Block, variant: str = "") -> tuple[str, ...]:
    """`Attention`, or where that is taken `LocalAttention`, `DecoderAttention`, `DecoderLocalAttention`."""
    role = "" if stack.path == "layers" else _camel(stack.path)
    own = "" if block.name == "block" else _camel(block.name)
    return tuple(dict.fromkeys((kind, variant + kind, own + kind, role + kind, role + own + kind)))


def _lower_block(b: Builder, stack: Stack, block: Block, layer: Layer, x: Ref, around: Around) -> Ref:
    outer = b.path
    b.path = (*outer, stack.path)
    with b.scope(layer, (x, *around.values()), _class_names("Block", stack, block)):
        shared = 0
        for sublayer in block.sublayers:
            if sublayer.norm is not None:
                shared += 1
            x = _lower_sublayer(b, stack, block, sublayer, x, around, f"norm{shared if shared > 1 else ''}")
    b.path = outer
    return x


def _lower_sublayer(
    b: Builder, stack: Stack, block: Block, sublayer: Sublayer, x: Ref, around: Around, shared: str
) -> Ref:
    first = sublayer.branches[0].name
    alone = len(sublayer.branches) == 1 and sublayer.branches[0].pre is None
    shared = f"{first}_norm" if alone else shared
    hint = "x" if len(sublayer.branches) == 1 else "normed"
    shared_input = x if sublayer.norm is None else norm.lower(sublayer.norm, b, x, shared, around.features, hint)
    outs = [_lower_branch(b, stack, block, branch, x, shared_input, around) for branch in sublayer.branches]
    total = outs[0]
    for out in outs[1:]:
        total = b.op("add", total, out)
    total = _scaled(b, total, sublayer.beta)
    base = _scaled(b, shared_input if sublayer.base == "normed" else x, sublayer.alpha)
    x = b.op("add", base, total, name=f"{first}_residual")
    if sublayer.after is None:
        return x
    taken = sublayer.norm is not None or any(branch.pre for branch in sublayer.branches)
    return norm.lower(sublayer.after, b, x, f"{first}_after_norm" if taken else f"{first}_norm", around.features)


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
    if isinstance(config, Attention):
        mask = around.mask if around.self_mask else None
        rope_table = None
        if config.rope is not None and config.head_dim is not None:
            rope_table = around.ropes[config.rope, config.head_dim]
        inputs = (inner, *(ref for ref in (mask, rope_table) if ref is not None))
        with b.scope(branch.name, inputs, _class_names("Attention", stack, block)):
            out = attention.lower(config, b, inner, inner, mask, rope_table, features)
    elif isinstance(config, CrossAttention):
        if around.memory is None:
            raise ValueError(f"{branch.at}: cross attention without an encoder")
        inputs = (inner, around.memory, *(() if around.mask is None else (around.mask,)))
        with b.scope(branch.name, inputs, _class_names("CrossAttention", stack, block)):
            out = attention.lower(config, b, inner, around.memory, around.mask, None, features)
    else:
        variant = "Gated" if config.kind == "gated" else ""
        with b.scope(branch.name, (inner,), _class_names("FeedForward", stack, block, variant)):
            out = ffn.lower(config, b, inner, features)
    if branch.post is not None:
        out = norm.lower(branch.post, b, out, f"{branch.name}_post_norm", features)
    if branch.layerscale is not None:
        init = Init("constant", branch.layerscale)
        scale = b.param(f"{branch.name}_scale", "weight", (features,), init, "channel_scale")
        out = b.op("channel_scale", out, name=f"{branch.name}_scale", params=(scale,))
    out = _scaled(b, out, branch.out_scale)
    return b.op("dropout", out, rate=branch.dropout) if branch.dropout else out
