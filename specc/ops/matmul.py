"""Ops around a matrix of weights: embedding, linear, and the bias that placing takes off a row-parallel linear."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import MeshAxis, P, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, as_first, made_in, shardable
from specc.ops.places import demand, use_of, whole_or_tokens


def _embedding_out(op: Op, ins: Types) -> Types:
    return (TensorType((*ins[0].axes, op.params[0].axes[1]), made_in(op)),)


def _embedding_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Rows split over the mesh axis give zeros for ids of other ranks, so a partial sum."""
    rows = op.params[0].axes[0]
    if shardable(rows, mesh):
        return [Signature((R,), (P,), (S(rows.shard_name),), "vocab_parallel")]
    out = _embedding_out(op, ins)[0]
    target = stream(out)
    demanded = target if target.kind == "S" else R  # ids carry no gradient
    return [Signature((demanded,), (target,), (use_of(target),)), Signature((R,), (R,), (R,))]


def _embedding_facts(op: Op, ins: Types) -> Facts:
    rows = op.params[0].axes[0].shard_name
    return Facts(contract=(rows,), linear=(1,), lowered={rows: "vocab_parallel"})


EMBEDDING = OpDef("embedding", _embedding_out, _embedding_signatures, _embedding_facts, saves=lambda op: ("in0",))


def _linear_out(op: Op, ins: Types) -> Types:
    return (replace(ins[0], axes=(*ins[0].axes[:-1], op.params[0].axes[0]), grad=True),)


def _linear_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    out, inner = op.params[0].axes
    count = len(op.params)
    if shardable(out, mesh):
        shard = S(out.shard_name)
        return [Signature((R,), (shard,), (shard,) * count)]
    if shardable(inner, mesh):
        shard = S(inner.shard_name)
        return [Signature((shard,), (P,), (shard,))] if count == 1 else []  # legalise takes the bias off
    return [
        Signature((demand(ins[0], t),), (t,), (use_of(t),) * count)
        for t in whole_or_tokens(ins[0], mesh, stream(_linear_out(op, ins)[0]), (inner.shard_name,))
    ]


def _linear_facts(op: Op, ins: Types) -> Facts:
    inner = op.params[0].axes[1].shard_name
    return Facts(contract=(inner,), linear=(0, 1) if len(op.params) == 1 else ())


def _linear_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 2 * _linear_out(op, ins)[0].numel(symbols) * op.params[0].axes[1].length


LINEAR = OpDef("linear", _linear_out, _linear_signatures, _linear_facts, flops=_linear_flops, saves=lambda op: ("in0",))


def _add_bias_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    return [Signature((t,), (t,), (use_of(t),)) for t in whole_or_tokens(ins[0], mesh, stream(ins[0]), ())]


ADD_BIAS = OpDef("add_bias", as_first, _add_bias_signatures, lambda op, ins: Facts(additive=True))


def _channel_scale_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    plain = [Signature((t,), (t,), (use_of(t),)) for t in whole_or_tokens(ins[0], mesh, stream(ins[0]), ())]
    return [Signature((P,), (P,), (R,)), *plain]


CHANNEL_SCALE = OpDef(
    "channel_scale",
    as_first,
    _channel_scale_signatures,
    lambda op, ins: Facts(linear=(0, 1)),
    saves=lambda op: ("in0",),
)

OPS = (EMBEDDING, LINEAR, ADD_BIAS, CHANNEL_SCALE)
