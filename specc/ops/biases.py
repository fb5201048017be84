"""Biases on scores: numbers for each head and distance, made of positions, and what a mask leaves of them."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import TOKEN_AXES, Axis, I, MeshAxis, Place, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, made_in, shardable
from specc.ops.places import demand, shards_of, whole_or_tokens


def _places(value: TensorType, mesh: MeshAxis) -> list[Place]:
    """Whole, or split by heads, or by queries on ranks that are fed different ones. Keys are whole."""
    return [*shards_of(value, mesh, ("keys",) if mesh.data else ("keys", *TOKEN_AXES)), R]


def _heads(op: Op) -> Axis:
    return Axis("heads", op.number("heads"), whole="whole" in dict(op.attrs))


SLOPES = OpDef(
    "slopes",  # of heads: how fast scores fall with the distance
    lambda op, ins: (TensorType((_heads(op),), made_in(op), grad=False),),
    lambda op, ins, mesh, stream: [Signature((None,), (R,))],
    lambda op, ins: Facts(shape_only=(0,), source=True),
)


def _pairs(ins: Types) -> tuple[Axis, Axis]:
    """Of positions of queries and of keys."""
    return ins[-2].axes[0], Axis("keys", ins[-1].axes[0].size)


def _alibi_out(op: Op, ins: Types) -> Types:
    """slopes [heads], positions of queries [seq] and of keys [keys] -> [heads, seq, keys]"""
    return (replace(ins[0], axes=(*ins[0].axes, *_pairs(ins))),)


def _alibi_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    slopes, queries, _ = ins
    return [Signature((demand(slopes, p), demand(queries, p), R), (p,)) for p in _places(_alibi_out(op, ins)[0], mesh)]


ALIBI = OpDef(
    "alibi",
    _alibi_out,
    _alibi_signatures,
    lambda op, ins: Facts(rename={2: {ins[2].axes[0].name: "keys"}}),
)


def _buckets_out(op: Op, ins: Types) -> Types:
    """positions of queries [seq] and of keys [keys] -> whole numbers [seq, keys]"""
    return (replace(ins[0], axes=_pairs(ins)),)


def _buckets_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    return [Signature((demand(ins[0], p), R), (p,)) for p in _places(_buckets_out(op, ins)[0], mesh)]


BUCKETS = OpDef(
    "buckets",
    _buckets_out,
    _buckets_signatures,
    lambda op, ins: Facts(rename={1: {ins[1].axes[0].name: "keys"}}),
)


def _relative_out(op: Op, ins: Types) -> Types:
    """buckets [seq, keys], a table [buckets, heads] -> [heads, seq, keys]"""
    return (TensorType((op.params[0].axes[1], *ins[0].axes), made_in(op)),)


def _relative_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    heads = op.params[0].axes[1]
    if shardable(heads, mesh):
        return [Signature((R,), (S(heads.name),), (S(heads.name),))]
    if not mesh.data:
        return [Signature((R,), (I,), (I,))]
    return [Signature((demand(ins[0], p),), (p,), (R,)) for p in _places(_relative_out(op, ins)[0], mesh)]


RELATIVE_BIAS = OpDef(
    "relative_bias",
    _relative_out,
    _relative_signatures,
    lambda op, ins: Facts(contract=("buckets",), linear=(1,)),
    saves=lambda op: ("in0",),
    again=True,
)


def _biased_out(op: Op, ins: Types) -> Types:
    """A bias [heads, seq, keys] and a mask [seq, keys] -> as the bias; of a mask [batch, 1, seq, keys] with batch"""
    bias, mask = ins
    rows = mask.axes[:1] if len(mask.axes) > 2 else ()
    return (replace(bias, axes=(*rows, *bias.axes)),)


def _biased_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    out = _biased_out(op, ins)[0]
    split = [p for p in _places(out, mesh) if p != R]
    places = dict.fromkeys((*split, *whole_or_tokens(out, mesh, stream(out), (*TOKEN_AXES, "keys"))))
    return [Signature(tuple(demand(x, p) for x in ins), (p,)) for p in places]


BIASED = OpDef(
    "biased",  # the least there is where the mask hides
    _biased_out,
    _biased_signatures,
    lambda op, ins: Facts(),
    saves=lambda op: ("in1",),
    again=True,
)

OPS = (SLOPES, ALIBI, BUCKETS, RELATIVE_BIAS, BIASED)
