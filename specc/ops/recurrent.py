"""What goes along a sequence in order: a short convolution over positions."""

from __future__ import annotations

from collections.abc import Mapping

from specc.ir.op import Op
from specc.ir.types import I, MeshAxis, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Traffic, Types, as_first, shardable
from specc.ops.places import demand, use_of


def tokens(type: TensorType) -> str:
    """The axis of tokens, of [batch, seq, channels], [seq, batch, channels] or [batch, heads, seq, head_dim]."""
    *before, _ = (axis.name for axis in type.axes)
    return next(name for name in reversed(before) if name != "batch")


def along(op: Op, ins: Types, mesh: MeshAxis, lowering: str) -> list[Signature]:
    """By samples; by tokens on ranks that are fed different ones, which then exchange what they must; whole.

    Without a lowering tokens are whole.
    """
    seq, data, params = tokens(ins[0]), mesh.data, len(op.params)
    split = [("batch", "plain")] * ("batch" in mesh.tokens)
    split += [(seq, lowering)] * (data and seq in mesh.tokens and bool(lowering))
    found = [Signature(tuple(demand(t, S(a)) for t in ins), (S(a),), (R,) * params, how) for a, how in split]
    whole = (R,) if data else (R, I)
    return [*found, *(Signature(tuple(demand(t, p) for t in ins), (p,), (use_of(p),) * params) for p in whole)]


def _conv_signatures(lowering: str):
    """Positions are needed in order, channels by themselves."""

    def signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
        channels = ins[0].axes[-1]
        own = S(channels.shard_name)
        inputs = (own, *(R for _ in ins[1:]))
        by_channel = [Signature(inputs, (own,), (own,) * len(op.params))] if shardable(channels, mesh) else []
        return [*by_channel, *along(op, ins, mesh, lowering)]

    return signatures


def _conv_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 2 * ins[0].numel(symbols) * op.params[0].axes[1].length


CONV = OpDef(
    "causal_conv",
    as_first,
    _conv_signatures("halo"),
    lambda op, ins: Facts(mix=(tokens(ins[0]),), lowered={tokens(ins[0]): "halo"}),
    flops=_conv_flops,
    saves=lambda op: ("in0",),
    any_order=True,
    traffic=lambda op, how: Traffic({"all-to-all": 1}, {"all-to-all": 1}) if how == "halo" else Traffic(),
    later="later_conv",
)
DOCUMENT_CONV = OpDef(  # of a second operand: where the document of each position starts [batch, seq]
    "document_conv",
    as_first,
    _conv_signatures(""),
    lambda op, ins: Facts(mix=(tokens(ins[0]),)),
    flops=_conv_flops,
    saves=lambda op: ("in0",),
    any_order=True,
)
LATER_CONV = OpDef(  # of the tokens behind those of which the cache has the last
    "later_conv",
    as_first,
    _conv_signatures(""),
    lambda op, ins: Facts(mix=(tokens(ins[0]),)),
    flops=_conv_flops,
    any_order=True,
    keeps=True,
)

OPS = (CONV, DOCUMENT_CONV, LATER_CONV)
