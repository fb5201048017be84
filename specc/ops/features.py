"""Features of the last axis: taken apart, and joined to one."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, P, R
from specc.ops.base import Facts, OpDef, Signature, Stream, Types
from specc.ops.places import demand, shards_of, whole_or_tokens


def parts(op: Op) -> tuple[Axis, ...]:
    """What the last axis is taken apart into, in order."""
    axes = op.attr("axes")
    assert isinstance(axes, tuple)
    return tuple(axis for axis in axes if isinstance(axis, Axis))


def _part_out(op: Op, ins: Types) -> Types:
    """[..., a+b] -> [..., a], [..., b]"""
    return tuple(replace(ins[0], axes=(*ins[0].axes[:-1], axis)) for axis in parts(op))


def _part_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    last = ins[0].axes[-1].shard_name
    places = [P, *shards_of(ins[0], mesh, (last,)), R, *(() if mesh.data else (I,))]
    return [Signature((t,), (t,) * len(op.outs)) for t in places]


PART = OpDef(
    "part",
    _part_out,
    _part_signatures,
    lambda op, ins: Facts(mix=(ins[0].axes[-1].shard_name,), linear=(0,)),
)


def _join_out(op: Op, ins: Types) -> Types:
    """[..., heads, seq, a], [..., 1 or heads, seq, b] -> [..., heads, seq, head_dim]"""
    length = sum(x.axes[-1].length for x in ins)
    return (replace(ins[0], axes=(*ins[0].axes[:-1], Axis("head_dim", length))),)


def _join_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """One that all heads share is whole where heads are split."""
    joined, last = _join_out(op, ins)[0], tuple(x.axes[-1].shard_name for x in ins)
    places = whole_or_tokens(joined, mesh, stream(joined), (*last, "head_dim"))
    return [Signature(tuple(demand(x, t) for x in ins), (t,)) for t in places]


JOIN = OpDef(
    "join",
    _join_out,
    _join_signatures,
    lambda op, ins: Facts(mix=tuple(x.axes[-1].shard_name for x in ins)),
)

OPS = (PART, JOIN)
