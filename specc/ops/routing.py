"""Routing: scores of experts, which of them a token goes to and with what weights, and losses that even that out."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, P, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, as_first
from specc.ops.matmul import LINEAR
from specc.ops.places import demand, use_of, whole_or_tokens
from specc.ops.pointwise import SOFTCAP


def _last(type: TensorType) -> str:
    return type.axes[-1].shard_name


def _tokens(type: TensorType) -> str:
    """The axis of tokens of a value [batch, seq, ...], in either order."""
    return next(axis.name for axis in type.axes[:2] if axis.name != "batch")


def _mixing_last(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    return [Signature((t,), (t,)) for t in whole_or_tokens(ins[0], mesh, stream(ins[0]), (_last(ins[0]),))]


ROUTER = replace(LINEAR, kind="router")  # which has a buffer beside its weight
SCORES = OpDef(  # of logits [..., choices]; where these are in half precision, it is not
    "scores",
    lambda op, ins: (replace(ins[0], dtype="float"),),
    _mixing_last,
    lambda op, ins: Facts(mix=(_last(ins[0]),)),
    flops=lambda op, ins, symbols: 5 * ins[0].numel(symbols),
    saves=lambda op: ("out0",),
)
LOGIT_CAP = replace(SOFTCAP, kind="logit_cap", infer=SCORES.infer)  # of logits, which are in half precision no more
NORMALISE = OpDef(  # divided by the sum over the last axis, of which `eps` is a part
    "normalise", as_first, _mixing_last, lambda op, ins: Facts(mix=(_last(ins[0]),)), saves=lambda op: ("in0",)
)


def _choosing(op: Op, ins: Types) -> Types:
    """What only says which experts are chosen has no gradient."""
    return (replace(ins[0], grad=False),)


def _correct_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), (_last(ins[0]),))
    return [Signature((t,), (R if t == I else t,), (use_of(t),)) for t in places]


def _limit_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), (_last(ins[0]),))
    return [Signature((t,), (R if t == I else t,)) for t in places]


CORRECT = OpDef(  # scores and a buffer
    "correct", _choosing, _correct_signatures, lambda op, ins: Facts(mix=(_last(ins[0]),), additive=True)
)
LIMIT = OpDef(  # to experts of the best groups
    "limit", _choosing, _limit_signatures, lambda op, ins: Facts(mix=(_last(ins[0]),)), stays=True
)


def _route_out(op: Op, ins: Types) -> Types:
    """Scores [..., choices], and what is chosen by where that is not the same -> gates and ids [..., topk]"""
    axes = (*ins[0].axes[:-1], Axis("topk", op.number("top_k")))
    return (replace(ins[0], axes=axes), TensorType(axes, "int64", grad=False))


def _route_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), (_last(ins[0]),))
    return [Signature(tuple(demand(x, t) for x in ins), (t, R if t == I else t)) for t in places]


ROUTE = OpDef(
    "route",
    _route_out,
    _route_signatures,
    lambda op, ins: Facts(mix=(_last(ins[0]),)),
    saves=lambda op: ("out0", "out1"),
    stays=True,
)


def _expert_scale_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """gates and ids [..., topk], of each expert [choices]"""
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ())
    return [Signature((t, R if t == I else t), (t,), (use_of(t),)) for t in places]


EXPERT_SCALE = OpDef(  # gates times a number of the expert of each
    "expert_scale",
    as_first,
    _expert_scale_signatures,
    lambda op, ins: Facts(mix=("choices",)),
    saves=lambda op: ("in0", "in1"),
)


def _usage_out(op: Op, ins: Types) -> Types:
    """ids [batch, seq, topk] -> how many tokens of each sample go to each expert [batch, choices]"""
    batch = next(axis for axis in ins[0].axes if axis.name == "batch")
    return (TensorType((batch, Axis("choices", op.number("experts"))), "int64", grad=False),)


def _of_samples(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Samples may be shared out; sums over tokens of which each rank has some are wanted by all of them."""
    t = S("batch") if "batch" in mesh.tokens else R
    return [Signature((t,), (t,))]


USAGE = OpDef("usage", _usage_out, _of_samples, lambda op, ins: Facts(contract=(_tokens(ins[0]), "topk")))


def _total_out(op: Op, ins: Types) -> Types:
    """[batch, seq, choices] -> their sum over tokens [batch, choices]"""
    return (replace(ins[0], axes=tuple(axis for axis in ins[0].axes if axis.name != _tokens(ins[0]))),)


def _total_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    tokens = S(_tokens(ins[0]))
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), (_last(ins[0]),))
    return [Signature((t,), (P if t == tokens else t,)) for t in places]


TOTAL = OpDef("total", _total_out, _total_signatures, lambda op, ins: Facts(contract=(_tokens(ins[0]),), linear=(0,)))


def _balance_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Counts are known to all, and it is linear in what is summed up."""
    if "batch" in mesh.tokens:
        return [Signature((S("batch"), S("batch")), (P,))]
    return [Signature((R, P), (P,)), *([] if mesh.data else [Signature((R, I), (I,))])]


BALANCE = OpDef(
    "balance",
    lambda op, ins: (TensorType(()),),
    _balance_signatures,
    lambda op, ins: Facts(contract=("batch",), mix=("choices",), linear=(1,)),
    saves=lambda op: ("in0",),
)


def _squares_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    tokens = [axis.name for axis in ins[0].axes[:2] if axis.name in mesh.tokens]
    whole = [] if mesh.data else [Signature((I,), (I,))]
    return [*(Signature((S(name),), (P,)) for name in tokens), *whole]


SQUARES = OpDef(
    "squares",  # of the logarithms of sums of exponentials of logits, summed over tokens
    lambda op, ins: (TensorType(()),),
    _squares_signatures,
    lambda op, ins: Facts(contract=tuple(axis.name for axis in ins[0].axes[:2]), mix=(_last(ins[0]),)),
    saves=lambda op: ("in0",),
)

OPS = (ROUTER, LOGIT_CAP, SCORES, NORMALISE, CORRECT, LIMIT, ROUTE, EXPERT_SCALE, USAGE, TOTAL, BALANCE, SQUARES)
