"""Keys and values of earlier tokens: `decode`, the second entry of a model, keeps them in a cache that it is handed."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, R, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types
from specc.ops.places import shards_of

CACHE = TensorType((), "cache", grad=False)
"""The type of a cache, which is no tensor: each rank has its own."""
LENGTH = "length"
"""Tokens that a cache has room for."""


def _made(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    return [Signature((None, None), (R,))]


ADVANCE = OpDef(  # positions of new tokens; the cache counts them
    "advance",
    lambda op, ins: (TensorType((ins[0].axes[1],), "int64", grad=False),),
    _made,
    lambda op, ins: Facts(shape_only=(0, 1), source=True),
)
SLOTS = OpDef(  # positions of all that the cache has room for
    "slots",
    lambda op, ins: (TensorType((Axis(LENGTH, LENGTH),), "int64", grad=False),),
    _made,
    lambda op, ins: Facts(shape_only=(0, 1), source=True),
)


def _appended_out(op: Op, ins: Types) -> Types:
    """[batch, kv_heads, seq, head_dim] -> [batch, kv_heads, length, head_dim], of keys and of values"""
    whole = Axis(LENGTH, LENGTH)
    return tuple(replace(t, axes=(*t.axes[:2], whole, *t.axes[3:])) for t in ins[:2])


def _appended_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    seq = ins[0].axes[2].shard_name
    places = [*shards_of(ins[0], mesh, (seq,)), R, *(() if mesh.data else (I,))]
    return [Signature((t, t, R), (t, t)) for t in places]


APPENDED = OpDef(
    "appended",
    _appended_out,
    _appended_signatures,
    lambda op, ins: Facts(mix=(ins[0].axes[2].shard_name,)),
    keeps=True,
)

OPS = (ADVANCE, SLOTS, APPENDED)
