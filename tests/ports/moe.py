"""Mixture of experts: a router sends each token to a few gated feed-forward layers (Shazeer et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from specc.components import ffn
from specc.components.base import Component, Config, Dim, Given
from specc.emit.expr.base import hole, read
from specc.emit.forms.base import Form
from specc.emit.forms.dense import COLUMN, ROW
from specc.emit.parts import ATOM, Expr, Part, Use
from specc.extension import Extension, LayoutAxis
from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ir.types import TOKEN_AXES, Axis, I, MeshAxis, P, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, shardable
from specc.ops.places import whole_or_tokens

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Moe(Config):
    """Mixture of gated feed-forward layers."""

    experts: Dim
    """Feed-forward layers."""
    top_k: Dim
    """Experts that a token goes to."""
    hidden: Dim
    """Features between the linears of an expert."""
    balance: float = 0.0
    """Factor of the loss that evens out how much the experts are used."""
    shared: Dim | None = None
    """Hidden features of an expert that every token goes to."""


def lower(config: Moe, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    hidden, experts = Axis("ffn", config.hidden), Axis("experts", config.experts)
    logits = b.linear(x, "router", Axis("choices", config.experts), features, False, hint="logits")
    route = b.op("route", logits, hints=("gates", "ids"), top_k=config.top_k, renormalised=True)
    gates, ids = Ref(route.op, 0), Ref(route.op, 1)
    if config.balance:
        term = b.op("balance", logits, ids, hint="term")
        b.term(b.op("scale", term, name="balance_scaled", hint="term", factor=config.balance))
    dispatch = b.op("dispatch", x, ids, hints=("rows", "owner"))
    rows, owner = Ref(dispatch.op, 0), Ref(dispatch.op, 1)

    def grouped(rows: Ref, name: str, out: Axis, inner: Axis, hint: str, last: bool = False) -> Ref:
        weight = b.param(name, "weight", (experts, out, inner), b.weight_init(out, inner, last), "experts")
        return b.op("grouped_linear", rows, owner, name=name, hint=hint, params=(weight,))

    gate = grouped(rows, "gate", hidden, features, "gate")
    gate = b.op("activation", gate, name="act", hint="gate", function="silu")
    rows = b.op("mul", gate, grouped(rows, "up", hidden, features, "up"), hint="rows")
    rows = grouped(rows, "down", features, hidden, "rows", last=True)
    out = b.op("combine", rows, gates, ids)
    if config.shared is not None:
        inner = ffn.Ffn(kind="gated", hidden=config.shared, activation="silu")
        with b.scope("shared", (x,), ("SharedExpert",)):
            own = ffn.lower(inner, b, x, {}, features)
        out = b.op("add", out, own)
    return out


def shrink(config: Moe, tp: int) -> Moe:
    """A few experts of a few features a rank."""
    few = min(config.experts, 4)
    update = {"experts": few, "top_k": min(config.top_k, few), "hidden": 8 * tp}
    return config.model_copy(update=update | ({"shared": 8 * tp} if config.shared else {}))


MOE = Component(
    "moe",
    Moe,
    "MixtureOfExperts",
    lower,
    smallest={"experts": 1, "top_k": 1, "hidden": 1},
    shards=("ffn",),
    split_by_tp=lambda config: (("hidden", config.hidden),),
    results=lambda config: ("router", "route", "dispatch", "gate", "act", "up", "down", "combine"),
    shrink=shrink,
    adds_to_loss=lambda config: bool(config.balance),
)

SLOTS = Axis("slots", "slots", ragged=True)
ROWS = {"batch": "slots", "seq": "slots"}
"""The tokens of rows are those of samples, in another order."""


def _along(mesh: MeshAxis, names: tuple[str, ...], outs: tuple[str, ...]) -> list[Signature]:
    """Operands and results are rows, `slots`, or have tokens, ``: both are split on a data axis, whole on others."""
    if not mesh.data:
        return [Signature((R,) * len(names), (R,) * len(outs))]
    token = next(name for name in ("batch", "seq") if name in mesh.tokens)
    return [Signature(tuple(S(name or token) for name in names), tuple(S(name or token) for name in outs))]


def _route_out(op: Op, ins: Types) -> Types:
    """[..., choices] -> gates [..., topk], ids [..., topk]"""
    axes = (*ins[0].axes[:-1], Axis("topk", op.number("top_k")))
    return (replace(ins[0], axes=axes), TensorType(axes, "int64", grad=False))


def _route_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ("choices",))
    return [Signature((t,), (t, R if t == I else t)) for t in places]


ROUTE = OpDef(
    "route", _route_out, _route_signatures, lambda op, ins: Facts(mix=("choices",)), saves=lambda op: ("out0", "out1")
)
DISPATCH = OpDef(
    "dispatch",
    lambda op, ins: (replace(ins[0], axes=(SLOTS, ins[0].axes[-1])), TensorType((SLOTS,), "int64", grad=False)),
    lambda op, ins, mesh, stream: _along(mesh, ("", ""), ("slots", "slots")),
    lambda op, ins: Facts(linear=(0,), regroup=ROWS),
    saves=lambda op: ("in1",),
)


def _grouped_out(op: Op, ins: Types) -> Types:
    return (replace(ins[0], axes=(*ins[0].axes[:-1], op.params[0].axes[1]), grad=True),)


def _grouped_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    _, out, inner = op.params[0].axes
    if mesh.data:
        return [Signature((S("slots"), S("slots")), (S("slots"),), (R,))]
    if shardable(out, mesh):
        return [Signature((R, R), (S(out.shard_name),), (S(out.shard_name),))]
    if shardable(inner, mesh):
        return [Signature((S(inner.shard_name), R), (P,), (S(inner.shard_name),))]
    return [Signature((R, R), (R,), (R,))]


def _grouped_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 2 * _grouped_out(op, ins)[0].numel(symbols) * op.params[0].axes[2].length


GROUPED = OpDef(
    "grouped_linear",
    _grouped_out,
    _grouped_signatures,
    lambda op, ins: Facts(contract=(op.params[0].axes[2].shard_name, "experts"), linear=(0, 2)),
    flops=_grouped_flops,
    saves=lambda op: ("in0", "in1"),
)


def _combine_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    whole = [] if mesh.data else [Signature((P, R, R), (P,))]
    return [*whole, *_along(mesh, ("slots", "", ""), ("",))]


COMBINE = OpDef(
    "combine",
    lambda op, ins: (replace(ins[1], axes=(*ins[1].axes[:-1], ins[0].axes[-1])),),
    _combine_signatures,
    lambda op, ins: Facts(contract=("topk",), linear=(0, 1), regroup=ROWS),
    saves=lambda op: ("in0", "in1", "in2"),
)


def _balance_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """A sequence is needed whole."""
    if not mesh.data:
        return [Signature((I, R), (I,))]
    return [Signature((S("batch"), S("batch")), (P,))] if "batch" in mesh.tokens else []


BALANCE = OpDef(
    "balance",
    lambda op, ins: (TensorType(()),),
    _balance_signatures,
    lambda op, ins: Facts(contract=("batch",), mix=("seq", "choices", "topk")),
    saves=lambda op: ("in0", "in1"),
)


def called(name: str, *attrs: str, ordered: bool = False) -> Callable[[Graph, Op], Expr]:
    """A call on all operands, parameters and attributes; `ordered`: the function wants the batch first."""

    def turn(axes: tuple[Axis, ...]) -> str:
        return ".transpose(0, 1)" if ordered and len(axes) > 1 and axes[1].name == "batch" else ""

    def made(graph: Graph, op: Op) -> Expr:
        parts: list[Part] = []
        for ref in op.inputs:
            turned = turn(graph.type(ref).axes)
            parts += [", ", Use(ref, ATOM if turned else 0), turned]
        for n in range(len(op.params)):
            parts += [", ", read(graph, op, n)]
        for attr in attrs:
            parts += [", ", hole(op, attr, op.attr(attr))]
        return Expr((f"{name}(", *parts[1:], f"){turn(op.outs[0].axes)}"), calls=(name,))

    return made


EXPERTS = Form(
    "experts",
    "Experts",
    "The weights of all experts.",
    {"weight": ("experts", "n_out", "n_in")},
    ("experts", "n_in", "n_out"),
    splits={"n_out": COLUMN, "n_in": ROW},
)
CONTEXT = LayoutAxis(
    "cp",
    "Ranks that hold different parts of every sample.",
    "every sample is split over cp = {}",
    tokens=TOKEN_AXES,
    data=True,
)
EXTENSION = Extension(
    "moe",
    (MOE,),
    (ROUTE, DISPATCH, GROUPED, COMBINE, BALANCE),
    (EXPERTS,),
    {
        "route": called("route", "top_k", "renormalised"),
        "dispatch": called("dispatch"),
        "grouped_linear": called("grouped_linear"),
        "combine": called("combine"),
        "balance": called("balance", ordered=True),
    },
    kernels=(Path(__file__).with_name("experts.py"),),
    functions="tests.ports.experts:FUNCTIONS",
    axes=(CONTEXT,),
    alike={"slots": ("batch", *TOKEN_AXES)},
)
