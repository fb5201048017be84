"""Recurrent mixers: a short convolution over positions, and the scan of a state space."""

from __future__ import annotations

from collections.abc import Mapping

from specc.ir.op import Op
from specc.ir.types import I, MeshAxis, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Traffic, Types, as_first, shardable
from specc.ops.places import use_of


def _tokens(type: TensorType) -> str:
    """The axis of tokens, of [batch, seq, channels], [seq, batch, channels] or [batch, heads, seq, head_dim]."""
    *before, _ = (axis.name for axis in type.axes)
    return next(name for name in reversed(before) if name != "batch")


def _along(op: Op, ins: Types, mesh: MeshAxis, lowering: str) -> list[Signature]:
    """By samples; by tokens on ranks that are fed different ones, which then exchange what they must; whole."""
    seq, data = _tokens(ins[0]), mesh.data
    split = [("batch", "plain")] * ("batch" in mesh.tokens) + [(seq, lowering)] * (data and seq in mesh.tokens)
    params = len(op.params)
    found = [Signature((S(name),) * len(ins), (S(name),), (R,) * params, how) for name, how in split]
    whole = (R,) if data else (R, I)
    return [*found, *(Signature((t,) * len(ins), (t,), (use_of(t),) * params) for t in whole)]


def _conv_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Positions are needed in order, channels by themselves."""
    channels = ins[0].axes[-1]
    own = S(channels.shard_name)
    by_channel = [Signature((own,), (own,), (own,) * len(op.params))] if shardable(channels, mesh) else []
    return [*by_channel, *_along(op, ins, mesh, "halo")]


def _conv_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 2 * ins[0].numel(symbols) * op.params[0].axes[1].length


CONV = OpDef(
    "causal_conv",
    as_first,
    _conv_signatures,
    lambda op, ins: Facts(mix=(_tokens(ins[0]),), lowered={_tokens(ins[0]): "halo"}),
    flops=_conv_flops,
    saves=lambda op: ("in0",),
    any_order=True,
    traffic=lambda op, how: Traffic({"all-to-all": 1}, {"all-to-all": 1}) if how == "halo" else Traffic(),
)


def _scan_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Heads by themselves, each with its group; one group serves all of them."""
    heads, groups = ins[0].axes[1], ins[2].axes[1]
    found: list[Signature] = []
    if shardable(heads, mesh) and (groups.length == 1 or shardable(groups, mesh)):
        own, theirs = S(heads.name), R if groups.length == 1 else S(groups.name)
        found.append(Signature((own, own, theirs, theirs), (own,), (own,) * 3))
    return [*found, *_along(op, ins, mesh, "pass_state")]


def _scan_facts(op: Op, ins: Types) -> Facts:
    heads, groups, seq = ins[0].axes[1].name, ins[2].axes[1], _tokens(ins[0])
    tied = {groups.name: heads} if groups.length > 1 else {}
    mixed = (seq, "state", *(() if tied else (groups.name,)))
    return Facts(rename={2: tied, 3: tied}, mix=mixed, lowered={seq: "pass_state"})


def _scan_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 6 * ins[0].numel(symbols) * ins[2].axes[-1].length


SCAN = OpDef(
    "scan",
    as_first,
    _scan_signatures,
    _scan_facts,
    flops=_scan_flops,
    saves=lambda op: ("in0", "in1", "in2", "in3"),
    any_order=True,
    traffic=lambda op, how: Traffic({"all-gather": 1}, {"reduce-scatter": 1}) if how == "pass_state" else Traffic(),
)

OPS = (CONV, SCAN)
