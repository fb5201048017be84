"""Routing, and the ways of tokens to experts and back."""

from __future__ import annotations

from collections.abc import Mapping

from specc.emit.expr.base import Writer, hole, member, number, read
from specc.emit.parts import ATOM, PRODUCT, SUM, Expr, Hole, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, Ref

HALF = ("bfloat16", "float16")


def _full(graph: Graph, ref: Ref, need: int = 0) -> tuple[Part, ...]:
    """The value, not in half precision."""
    return (Use(ref, ATOM), ".to(REDUCE)") if graph.type(ref).dtype in HALF else (Use(ref, need),)


def _scores(graph: Graph, op: Op) -> Expr:
    logits, function = op.inputs[0], op.text("function")
    if function == "softmax":
        dtype = ", dtype=REDUCE" if graph.type(logits).dtype in HALF else ""
        return Expr((Use(logits, ATOM), f".softmax(-1{dtype})"))
    before, after = {"sigmoid": ("torch.sigmoid(", ")"), "sqrt_softplus": ("F.softplus(", ").sqrt()")}[function]
    return Expr((before, *_full(graph, logits), after))


def _normalise(graph: Graph, op: Op) -> Expr:
    x = Use(op.inputs[0], ATOM, named=True)
    total: tuple[Part, ...] = (x, ".sum(-1, keepdim=True)")
    if op.attr("eps"):
        total = ("(", *total, " + ", Hole(f"{op.id}.eps", "eps", number(op.real("eps"))), ")")
    return Expr((x, " / ", *total), PRODUCT)


def _correct(graph: Graph, op: Op) -> Expr:
    return Expr((Use(op.inputs[0], ATOM), f".detach() + {read(graph, op, 0)}"), SUM)


def _limit(graph: Graph, op: Op) -> Expr:
    x = op.inputs[0]
    parts: list[Part] = ["limited(", Use(x, ATOM), ".detach()"] if graph.type(x).grad else ["limited(", Use(x)]
    for name in ("groups", "keep", "best"):
        parts += [", ", hole(op, name, op.attr(name))]
    fill = "-math.inf" if op.attr("fill") is None else repr(op.attr("fill"))
    parts += [", ", Hole(f"{op.id}.fill", "fill", fill), ")"]
    return Expr(tuple(parts), calls=("limited",))


def _route(graph: Graph, op: Op) -> Expr:
    scores, *by = op.inputs
    top_k = hole(op, "top_k", op.attr("top_k"))
    if by:
        return Expr(("chosen(", Use(scores), ", ", Use(by[0]), ", ", top_k, ")"), calls=("chosen",))
    return Expr((Use(scores, ATOM), ".topk(", top_k, ")"))


def _dim(graph: Graph, op: Op) -> str:
    """That of tokens."""
    return "1" if graph.type(op.inputs[0]).axes[0].name == "batch" else "0"


def _usage(graph: Graph, op: Op) -> Expr:
    experts = hole(op, "experts", op.attr("experts"))
    return Expr(("usage(", Use(op.inputs[0]), ", ", experts, f", {_dim(graph, op)})"), calls=("usage",))


def _total(graph: Graph, op: Op) -> Expr:
    return Expr((Use(op.inputs[0], ATOM), f".sum({_dim(graph, op)})"))


def _squares(graph: Graph, op: Op) -> Expr:
    return Expr(("squares(", *_full(graph, op.inputs[0]), ")"), calls=("squares",))


def _called(name: str, *attrs: str, meshes: bool = False) -> Writer:
    """A call of that kernel on all operands and attributes, and on the mesh axes over which ranks exchange anything."""

    def made(graph: Graph, op: Op) -> Expr:
        parts: list[Part] = [part for ref in op.inputs for part in (", ", Use(ref))]
        for attr in attrs:
            parts += [", ", hole(op, attr, op.attr(attr))]
        parts += [f", self.{axis}" for axis, _ in op.lowering] if meshes else []
        return Expr((f"{name}(", *parts[1:], ")"), calls=(name,))

    return made


def _grouped(graph: Graph, op: Op) -> Expr:
    rows, owner = op.inputs
    module = member(op, op.params[0]).rpartition(".")[0]
    return Expr((f"{module}(", Use(rows), ", ", Use(owner), ")"), calls=("grouped_linear",))


def _dispatch(graph: Graph, op: Op) -> Expr:
    """By what it is asked: the plain one is what most have."""
    few = ("experts",) if "experts" in dict(op.attrs) else ()
    if len(op.inputs) > 2:
        return _called("dispatch_weighted", *few)(graph, op)
    return _called("dispatch_some", *few)(graph, op) if few else _called("dispatch")(graph, op)


def _expert_bias(graph: Graph, op: Op) -> Expr:
    x, gates, ids = op.inputs
    added = (" + expert_bias(", Use(gates), ", ", Use(ids), f", {read(graph, op, 0)})")
    return Expr((Use(x, SUM), *added), SUM, calls=("expert_bias",))


def _some_bias(graph: Graph, op: Op) -> Expr:
    x, ids, *gates = op.inputs
    weights = [part for gate in gates for part in (", ", Use(gate))]
    added = (" + some_bias(", Use(ids), f", {read(graph, op, 0)}", *weights, ")")
    return Expr((Use(x, SUM), *added), SUM, calls=("some_bias",))


def _logit_cap(graph: Graph, op: Op) -> Expr:
    cap, x = hole(op, "cap", op.attr("cap")), _full(graph, op.inputs[0], PRODUCT)
    return Expr(("torch.tanh(", *x, " / ", cap, ") * ", cap), PRODUCT)


def _expert_scale(graph: Graph, op: Op) -> Expr:
    gates, ids = op.inputs
    return Expr((Use(gates, PRODUCT), f" * {read(graph, op, 0)}[", Use(ids), "]"), PRODUCT)


def _router(graph: Graph, op: Op) -> Expr:
    module = member(op, op.params[0]).rpartition(".")[0]
    return Expr((f"{module}(", Use(op.inputs[0]), ")"))


TABLE: Mapping[str, Writer] = {
    "router": _router,
    "correct": _correct,
    "limit": _limit,
    "logit_cap": _logit_cap,
    "scores": _scores,
    "normalise": _normalise,
    "route": _route,
    "expert_scale": _expert_scale,
    "usage": _usage,
    "total": _total,
    "balance": _called("balance", "top_k"),
    "squares": _squares,
    "dispatch": _dispatch,
    "grouped_linear": _grouped,
    "grouped_last": _grouped,
    "combine": _called("combine"),
    "combine_some": _called("combine_some"),
    "collect": _called("collect"),
    "returned": _called("returned", "experts"),
    "expert_bias": _expert_bias,
    "some_bias": _some_bias,
    "to_experts": _called("to_experts", "experts", meshes=True),
    "from_experts": _called("from_experts", "experts", meshes=True),
}
