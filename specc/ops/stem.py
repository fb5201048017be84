"""Images taken apart into patches, frames along time, and vectors that every sample has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, R, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, made_in
from specc.ops.places import demand, shards_of, use_of, whole_or_tokens


def _patches_out(op: Op, ins: Types) -> Types:
    """[batch, channels, height, width] -> [batch, seq, pixels]; with `first` tokens, seq first"""
    axes = op.attr("axes")
    assert isinstance(axes, tuple)
    seq, inner = (axis for axis in axes if isinstance(axis, Axis))
    batch = ins[0].axes[0]
    order = (seq, batch) if dict(op.attrs).get("first") == "tokens" else (batch, seq)
    return (TensorType((*order, inner), made_in(op, ins[0].dtype), grad=False),)


def _patches_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """An image is whole."""
    places = [*(shards_of(ins[0], mesh) if mesh.data else ()), R]
    return [Signature((t,), (t,)) for t in places]


PATCHES = OpDef(  # squares of an image that share no pixel, row by row; pixels by channel, then by row
    "patches",
    _patches_out,
    _patches_signatures,
    lambda op, ins: Facts(mix=tuple(axis.name for axis in ins[0].axes[1:])),
)


def _own_out(op: Op, ins: Types) -> Types:
    """[batch, seq, d_model], own [count, d_model] -> [batch, seq + count, d_model]"""
    count = op.params[0].axes[0].length
    seq = _seq(ins)
    axes = (axis._replace(size=axis.length + count) if axis.name == seq else axis for axis in ins[0].axes)
    return (replace(ins[0], axes=tuple(axes), grad=True),)


def _seq(ins: Types) -> str:
    return next(axis.name for axis in ins[0].axes[:2] if axis.name != "batch")


def _own_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Tokens are whole."""
    places = whole_or_tokens(ins[0], mesh, stream(_own_out(op, ins)[0]), (_seq(ins),))
    return [Signature((t,), (t,), (use_of(t),)) for t in places]


OWN_TOKENS = OpDef(  # vectors of the model stand among tokens, in front of the one of number `at`
    "own_tokens",
    _own_out,
    _own_signatures,
    lambda op, ins: Facts(mix=(_seq(ins),), additive=True),
    any_order=True,
)


def _conv_out(op: Op, ins: Types) -> Types:
    """[batch, channels, time], weight [d_model, channels, taps] -> [batch, d_model, time / stride]"""
    batch, _, time = ins[0].axes
    out, _, taps = op.params[0].axes
    length = (time.length + 2 * op.number("padding") - taps.length) // op.number("stride") + 1
    return (TensorType((batch, out, Axis("time", length)), made_in(op, ins[0].dtype)),)


def _conv_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Time is whole; where tokens are split behind it, the gradient is a partial one."""
    count = len(op.params)
    if mesh.data:
        return [Signature((t,), (t,), (R,) * count) for t in (*shards_of(ins[0], mesh), R)]
    places = [R, I] if mesh.tokens else [I, R]
    return [Signature((demand(ins[0], t),), (t,), (use_of(t),) * count) for t in places]


def _conv_facts(op: Op, ins: Types) -> Facts:
    return Facts(
        rename={0: {ins[0].axes[1].shard_name: "channels"}},
        contract=("channels",),
        mix=("time", "taps"),
        linear=(0, 1) if len(op.params) == 1 else (),
    )


def _conv_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    _, channels, taps = op.params[0].axes
    return 2 * _conv_out(op, ins)[0].numel(symbols) * channels.length * taps.length


TIME_CONV = OpDef("time_conv", _conv_out, _conv_signatures, _conv_facts, flops=_conv_flops, saves=lambda op: ("in0",))


def _last_out(op: Op, ins: Types) -> Types:
    """[batch, d_model, time] -> [batch, seq, d_model]; with `first` tokens, seq first"""
    batch, features, _ = ins[0].axes
    axes = op.attr("axes")
    assert isinstance(axes, tuple)
    (seq,) = (axis for axis in axes if isinstance(axis, Axis))
    order = (seq, batch) if dict(op.attrs).get("first") == "tokens" else (batch, seq)
    return (replace(ins[0], axes=(*order, features)),)


def _last_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = [*(shards_of(ins[0], mesh) if mesh.data else ()), R, *(() if mesh.data else (I,))]
    return [Signature((t,), (t,)) for t in places]


TIME_LAST = OpDef(  # frames are tokens from here on
    "time_last", _last_out, _last_signatures, lambda op, ins: Facts(mix=("time",), linear=(0,))
)

OPS = (PATCHES, OWN_TOKENS, TIME_CONV, TIME_LAST)
