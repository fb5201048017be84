"""How images are taken apart, and vectors are put in front of their patches."""

from __future__ import annotations

from specc.emit.expr.base import Writer, hole, member, read
from specc.emit.leaf_class import CAST
from specc.emit.parts import ATOM, Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op


def _patches(graph: Graph, op: Op) -> Expr:
    size, cast = hole(op, "patch", op.attr("patch")), CAST * ("dtype" in dict(op.attrs))
    parts = ("F.unfold(", Use(op.inputs[0]), ", ", size, ", stride=", size, f"){_turned(op)}{cast}")
    return Expr(parts, alone=True)


def _turned(op: Op) -> str:
    """Features behind what they are of."""
    return ".permute(2, 0, 1)" if dict(op.attrs).get("first") == "tokens" else ".transpose(1, 2)"


def _own_tokens(graph: Graph, op: Op) -> Expr:
    dim = 1 if graph.type(op.inputs[0]).axes[0].name == "batch" else 0
    parts = ("with_tokens(", Use(op.inputs[0]), f", {read(graph, op, 0)}, {op.number('at')}, {dim})")
    return Expr(parts, calls=("with_tokens",), alone=True)


def _time_conv(graph: Graph, op: Op) -> Expr:
    """Of a batch that is fed, what the file computes in."""
    module = member(op, op.params[0]).rpartition(".")[0]
    if "dtype" in dict(op.attrs):
        return Expr((f"{module}(", Use(op.inputs[0], ATOM), f"{CAST})"))
    return Expr((f"{module}(", Use(op.inputs[0]), ")"))


def _time_last(graph: Graph, op: Op) -> Expr:
    return Expr((Use(op.inputs[0], ATOM), f"{_turned(op)}.contiguous()"))  # stages send what is in order


TABLE: dict[str, Writer] = {
    "patches": _patches,
    "own_tokens": _own_tokens,
    "time_conv": _time_conv,
    "time_last": _time_last,
}
