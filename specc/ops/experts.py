"""Experts: tokens to rows sorted by expert and back, linears of which each expert has its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, P, Place, R, S, TensorType
from specc.ops.base import Exchange, Facts, OpDef, Owned, Signature, Stream, Traffic, Types, as_first, shardable
from specc.ops.places import demand, use_of, whole_or_tokens


def _tokens(type: TensorType, mesh: MeshAxis) -> Place:
    """Split by tokens, or rows of them, on ranks that are fed different ones; whole on others."""
    split = [axis.shard_name for axis in type.axes if axis.shard_name in mesh.tokens]
    return S(split[0]) if mesh.data and split else R


def _along(ins: Types, outs: Types, mesh: MeshAxis) -> Signature:
    return Signature(tuple(_tokens(x, mesh) for x in ins), tuple(_tokens(x, mesh) for x in outs))


def _everywhere(ins: Types, outs: Types, mesh: MeshAxis) -> list[Signature]:
    """Where all ranks do the same with the same."""
    if mesh.data:
        return []
    given, made = (tuple(I if t.grad else R for t in types) for types in (ins, outs))
    return [Signature(given, made)]


def _as_rows(tokens: TensorType) -> dict[str, str]:
    """Rows are of the tokens of samples, in another order."""
    return {axis.name: "slots" for axis in tokens.axes[:-1]}


def _dispatch_out(op: Op, ins: Types) -> Types:
    """x [..., d], ids [..., topk] -> rows [slots, d], the expert of each [slots], and which choice it is [slots]

    Behind ids may stand gates [..., topk], which rows are weighted by; of choices from `experts` on there are no rows.
    """
    slots = Axis("slots", "slots", ragged=True, factors=(("topk", ins[1].axes[-1].length),))
    whole = TensorType((slots,), "int64", grad=False)
    return (replace(ins[0], axes=(slots, ins[0].axes[-1])), whole, whole)


def _dispatch_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """What experts are given is each rank's own part of a gradient, but where all of them are whole."""
    outs = _dispatch_out(op, ins)
    return [_along(ins, outs, mesh), *(_everywhere(ins, outs, mesh) if "whole" in dict(op.attrs) else [])]


DISPATCH = OpDef(
    "dispatch",
    _dispatch_out,
    _dispatch_signatures,
    lambda op, ins: Facts(linear=(0, *range(2, len(ins))), regroup=_as_rows(ins[1])),
    saves=lambda op: ("in1",) if len(op.inputs) == 2 else ("in0", "in1", "in2"),
    owned=Owned("slots", "experts", "to_experts", "from_experts"),
)


def _to_out(op: Op, ins: Types) -> Types:
    """rows [slots, d], owner [slots] -> the same, and where each came from, with the axis of experts first"""
    experts = Axis("experts", op.number("experts"))
    rows, whose = (replace(type, axes=(experts, *type.axes)) for type in ins)
    return (rows, whose, whose)


def _to_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    outs = _to_out(op, ins)
    if mesh.data and shardable(outs[0].axes[0], mesh):
        return [Signature((S("slots"),) * 2, (S("experts"),) * 3, lowering="all_to_all")]
    return [_along(ins, outs, mesh)]


TO_EXPERTS = OpDef(
    "to_experts",
    _to_out,
    _to_signatures,
    lambda op, ins: Facts(linear=(0,), exchanges={"all_to_all": Exchange(("slots", "slots"), "experts")}),
    saves=lambda op: ("in1",),
    traffic=lambda op, how: Traffic({"all-to-all": 2}, {"all-to-all": 1}) if how == "all_to_all" else Traffic(),
)


def _from_out(op: Op, ins: Types) -> Types:
    return (replace(ins[0], axes=ins[0].axes[1:]),)


def _from_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Out of the axis of experts; of rows that are partial sums they stay such."""
    if mesh.data and shardable(ins[0].axes[0], mesh):
        return [Signature((S("experts"), S("experts"), S("slots")), (S("slots"),), lowering="all_to_all")]
    whole = [] if mesh.data else [Signature((P, R, R), (P,))]
    return [*whole, _along(ins, _from_out(op, ins), mesh)]


FROM_EXPERTS = OpDef(
    "from_experts",
    _from_out,
    _from_signatures,
    lambda op, ins: Facts(linear=(0,), exchanges={"all_to_all": Exchange(("experts", "experts", "slots"), "slots")}),
    saves=lambda op: ("in1", "in2"),
    traffic=lambda op, how: Traffic({"all-to-all": 1}, {"all-to-all": 1}) if how == "all_to_all" else Traffic(),
)


def _grouped_out(op: Op, ins: Types) -> Types:
    return (replace(ins[0], axes=(*ins[0].axes[:-1], op.params[0].axes[1]), grad=True),)


def _grouped_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    experts, out, inner = op.params[0].axes
    count = len(op.params)
    if mesh.data and shardable(experts, mesh) and ins[0].dim("experts") is not None:
        return [Signature((S("experts"),) * 2, (S("experts"),), (S("experts"),) * count)]
    if mesh.data:
        rows = [_tokens(x, mesh) for x in ins]
        return [Signature(tuple(rows), (rows[0],), (R,) * count)]
    if shardable(out, mesh):
        return [Signature((R, R), (S(out.shard_name),), (S(out.shard_name),) * count)]
    if shardable(inner, mesh):
        return [Signature((S(inner.shard_name), R), (P,), (S(inner.shard_name),))]
    return [Signature((R, R), (R,), (R,) * count), Signature((I, R), (I,), (I,) * count)]


def _grouped_facts(op: Op, ins: Types) -> Facts:
    """A row is that of one expert: rows of all of them are a sum over experts, of zeros but for one."""
    chosen = () if ins[0].dim("experts") is not None else ("experts",)
    linear = (0, 2) if len(op.params) == 1 else ()
    return Facts(contract=(op.params[0].axes[2].shard_name, *chosen), linear=linear)


def _grouped_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 2 * _grouped_out(op, ins)[0].numel(symbols) * op.params[0].axes[2].length


GROUPED = OpDef(
    "grouped_linear",
    _grouped_out,
    _grouped_signatures,
    _grouped_facts,
    flops=_grouped_flops,
    saves=lambda op: ("in0", "in1"),
)
GROUPED_LAST = replace(GROUPED, kind="grouped_last")  # of which a bias is added to weighted sums of rows


def _combine_out(op: Op, ins: Types) -> Types:
    """rows [slots, d], gates [..., topk], order [slots] -> [..., d]"""
    return (replace(ins[0], axes=(*ins[1].axes[:-1], ins[0].axes[-1])),)


def _combine_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    whole, outs = [] if mesh.data else [Signature((P, R, R), (P,))], _combine_out(op, ins)
    return [*whole, _along(ins, outs, mesh), *_everywhere(ins, outs, mesh)]


COMBINE = OpDef(
    "combine",
    _combine_out,
    _combine_signatures,
    lambda op, ins: Facts(contract=("topk",), linear=(0, 1), regroup=_as_rows(ins[1])),
    flops=lambda op, ins, symbols: 2 * ins[0].numel(symbols),
    saves=lambda op: ("in0", "in1", "in2"),
)


COMBINE_SOME = replace(COMBINE, kind="combine_some")  # choices without rows give nothing


def _collect_facts(op: Op, ins: Types) -> Facts:
    return Facts(contract=("topk",), linear=(0,), regroup=_as_rows(ins[1]))


def _without_rows(op: Op) -> tuple[str, ...]:
    return ("in1", "in2")


COLLECT = replace(  # of rows that are weighted: ids in the place of gates
    COMBINE, kind="collect", facts=_collect_facts, saves=_without_rows
)


def _returned_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ())
    return [Signature(tuple(demand(x, t) for x in ins), (t,)) for t in places]


RETURNED = OpDef(  # x [..., d], gates and ids [..., topk]: x times what goes to choices that are no experts
    "returned",
    as_first,
    _returned_signatures,
    lambda op, ins: Facts(mix=("topk",)),
    flops=lambda op, ins, symbols: ins[0].numel(symbols),
    saves=lambda op: ("in0", "in1", "in2"),
)


def _bias_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """x [..., d], gates and ids [..., topk], of each expert [experts, d]"""
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ())
    return [Signature(tuple(demand(x, t) for x in ins), (t,), (use_of(t),)) for t in places]


EXPERT_BIAS = OpDef(  # of the experts that a token goes to
    "expert_bias",
    as_first,
    _bias_signatures,
    lambda op, ins: Facts(mix=("topk", "experts")),
    saves=lambda op: ("in1", "in2"),
)


def _some_saves(op: Op) -> tuple[str, ...]:
    return _without_rows(op)[: len(op.inputs) - 1]


SOME_BIAS = replace(EXPERT_BIAS, kind="some_bias", saves=_some_saves)  # of experts: ids, and gates where they count

OPS = (
    DISPATCH,
    TO_EXPERTS,
    GROUPED,
    GROUPED_LAST,
    FROM_EXPERTS,
    COMBINE,
    COMBINE_SOME,
    COLLECT,
    RETURNED,
    EXPERT_BIAS,
    SOME_BIAS,
)
