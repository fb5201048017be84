"""What several heads share, where ranks are more than what is shared or cannot part it evenly: each takes its own."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, P, R, S
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, shardable
from specc.ops.places import shards_of
from specc.ops.work import Local, Passes, Work

SELECT = "select"
"""How a rank makes its own part of what every rank has whole."""


def axis_of(ins: Types) -> Axis:
    """What is shared: of [batch, heads, seq, head_dim] the heads, of [..., heads*head_dim] the last."""
    return ins[0].axes[1 if len(ins[0].axes) == 4 else -1]


def _out(op: Op, ins: Types) -> Types:
    """Each element of the first factor `times` times, in order."""
    axis, times = axis_of(ins), op.number("times")
    (name, count), *rest = axis.factors or ((axis.name, axis.length),)
    more = Axis.of(**{name: count * times}, **dict(rest)) if axis.factors else Axis(name, count * times)
    return (replace(ins[0], axes=tuple(more if known == axis else known for known in ins[0].axes)),)


def _signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    name = axis_of(ins).shard_name
    if shardable(axis_of(_out(op, ins)), mesh):
        return [Signature((R,), (S(name),), lowering=SELECT)]
    places = [P, *shards_of(ins[0], mesh, (name,)), R, *(() if mesh.data else (I,))]
    return [Signature((t,), (t,)) for t in places]


def _facts(op: Op, ins: Types) -> Facts:
    name = axis_of(ins).shard_name
    return Facts(mix=(name,), linear=(0,), selects={SELECT: name})


def copies(op: Op) -> bool:
    """Whether a rank has several, which it joins; one alone is a view."""
    return bool(op.number("heads") * op.number("times") > op.number("ranks"))


def _work(x: Local) -> Passes:
    """A gradient is zero where other ranks have their own."""
    made, given = x.bytes(x.outs[0]), x.bytes(x.ins[0])
    forward = Work(bytes=2 * made, kernels=1) if copies(x.op) else Work()
    return Passes(forward, Work(bytes=made + given, kernels=2) if made < given else forward)


OWN_HEADS = OpDef("own_heads", _out, _signatures, _facts, work=_work)
"""Of `heads` heads, each so many `times`, those of one of so many `ranks`."""

OPS = (OWN_HEADS,)
