"""Images taken apart into patches, and vectors that every sample has."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, MeshAxis, R, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, made_in
from specc.ops.places import shards_of, use_of, whole_or_tokens


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

OPS = (PATCHES, OWN_TOKENS)
