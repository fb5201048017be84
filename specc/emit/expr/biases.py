"""Biases on scores."""

from __future__ import annotations

from specc.emit.expr.base import Writer, hole, member
from specc.emit.leaf_class import CAST
from specc.emit.parts import ATOM, PRODUCT, Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op


def _slopes(graph: Graph, op: Op) -> Expr:
    name = f"{'upper_' * bool(op.attr('above'))}alibi_slopes"
    like = Use(op.inputs[0], ATOM, named=True)
    cast = CAST * ("dtype" in dict(op.attrs))
    return Expr((f"{name}(", hole(op, "heads", op.attr("heads")), ", ", like, f".device){cast}"), calls=(name,))


def _alibi(graph: Graph, op: Op) -> Expr:
    slopes, queries, keys = op.inputs
    apart = ("(", Use(queries, ATOM), "[:, None] - ", Use(keys, PRODUCT), ").abs()")
    return Expr(("-", Use(slopes, ATOM), "[:, None, None] * ", *apart), PRODUCT, alone=True, called="alibi")


def _buckets(graph: Graph, op: Op) -> Expr:
    name = f"{'signed' if op.attr('both') else 'earlier'}_buckets"
    numbers = (hole(op, "buckets", op.attr("buckets")), ", ", hole(op, "max_distance", op.attr("max_distance")))
    return Expr(
        (f"{name}(", Use(op.inputs[0]), ", ", Use(op.inputs[1]), ", ", *numbers, ")"), calls=(name,), called="buckets"
    )


def _relative_bias(graph: Graph, op: Op) -> Expr:
    return Expr((f"{member(op, op.params[0]).rpartition('.')[0]}(", Use(op.inputs[0]), ")"), alone=True, called="bias")


def _biased(graph: Graph, op: Op) -> Expr:
    bias, mask = op.inputs
    least = ("torch.finfo(", Use(bias, ATOM, named=True), ".dtype).min)")
    return Expr(("torch.where(", Use(mask), ", ", Use(bias, named=True), ", ", *least), alone=True, called="bias")


TABLE: dict[str, Writer] = {
    "slopes": _slopes,
    "alibi": _alibi,
    "buckets": _buckets,
    "relative_bias": _relative_bias,
    "biased": _biased,
}
