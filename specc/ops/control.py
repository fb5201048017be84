"""The loss, and ops that only carry values: repeats, pipeline cuts, conversions."""

from __future__ import annotations

from collections.abc import Mapping

from specc.ir.op import Op, OpError
from specc.ir.types import I, MeshAxis, P, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Traffic, Types, shardable
from specc.ops.conversions import conversion


def _loss_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """With logits split by vocab: two all-reduces, of the maximum and of (sum of exponentials, correct logit)."""
    vocab = ins[0].axes[-1]
    if shardable(vocab, mesh):
        return [Signature((S(vocab.shard_name), R), (I,), (), "vocab_parallel")]
    if mesh.data:
        tokens = stream(ins[1])
        return [Signature((tokens, tokens), (P,))]
    return [Signature((I, R), (I,))]


def _loss_facts(op: Op, ins: Types) -> Facts:
    *tokens, vocab = (axis.shard_name for axis in ins[0].axes)
    return Facts(contract=tuple(tokens), mix=(vocab,), lowered={vocab: "vocab_parallel"})


def _loss_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 5 * ins[0].numel(symbols)


def _loss_traffic(op: Op, lowering: str) -> Traffic:
    return Traffic({"all-reduce": 2}) if lowering == "vocab_parallel" else Traffic()


CROSS_ENTROPY = OpDef(
    "cross_entropy",
    lambda op, ins: (TensorType((), grad=True),),
    _loss_signatures,
    _loss_facts,
    flops=_loss_flops,
    saves=lambda op: ("in0",),
    traffic=_loss_traffic,
)


def _pinned(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    types = tuple(stream(t) for t in ins)
    return [Signature(types, types)]


def _carry(kind: str) -> OpDef:
    return OpDef(kind, lambda op, ins: ins, _pinned, lambda op, ins: Facts())


REPEAT, END, CUT = _carry("repeat"), _carry("end"), _carry("cut")


def _no_signature(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    raise OpError(op, "conversions are made by placing, not placed")


def _link_traffic(op: Op, lowering: str) -> Traffic:
    link = conversion(op.place("src"), op.place("dst"))
    if link is None:
        return Traffic()
    back = op.outs[0].grad and link.backward
    return Traffic({link.forward: 1} if link.forward else {}, {link.backward: 1} if back else {})


CONVERT = OpDef(
    "convert", lambda op, ins: ins, _no_signature, lambda op, ins: Facts(linear=(0,)), traffic=_link_traffic
)

ZERO = OpDef(
    "zero",  # a sum without terms, in the dtype of the operand
    lambda op, ins: (TensorType((), grad=True),),
    lambda op, ins, mesh, stream: [Signature((None,), (stream(TensorType((), grad=True)),))],
    lambda op, ins: Facts(shape_only=(0,), source=True, zero=True),
)

OPS = (CROSS_ENTROPY, REPEAT, END, CUT, CONVERT, ZERO)
