"""Conversions between placements, along the first axis, and the order of axes."""

from __future__ import annotations

from specc.emit.expr.base import Writer
from specc.emit.parts import ATOM, Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, OpError
from specc.ops.conversions import conversion


def _convert(graph: Graph, op: Op) -> Expr:
    mesh, source, target = op.text("mesh"), op.place("src"), op.place("dst")
    made = conversion(source, target)
    if made is None:
        raise OpError(op, f"no function of generated code converts {source} to {target}")
    if source.kind == target.kind == "S":
        dims = f"{op.outs[0].dim(target.axis)}, {op.outs[0].dim(source.axis)}"
        return Expr((f"{made.kernel}(", Use(op.inputs[0]), f", {dims}, self.{mesh})"), calls=(made.kernel,))
    axis = target.axis or source.axis
    dim = op.outs[0].dim(axis) if axis else 0
    if not made.forward and axis:
        return Expr((f"{made.kernel}(", Use(op.inputs[0]), f", {dim}, self.{mesh})"), calls=(made.kernel,))
    if not dim:
        return Expr((f"{made.kernel}(", Use(op.inputs[0]), f", self.{mesh})"), calls=(made.kernel,))
    turned = f".transpose(0, {dim})"
    parts = (f"{made.kernel}(", Use(op.inputs[0], ATOM), f"{turned}, self.{mesh}){turned}")
    return Expr(parts, calls=(made.kernel,), view=True)


def _transpose(graph: Graph, op: Op) -> Expr:
    return Expr((Use(op.inputs[0], ATOM), ".t()" if len(op.outs[0].axes) == 2 else ".transpose(0, 1)"), view=True)


TABLE: dict[str, Writer] = {
    "convert": _convert,
    "transpose": _transpose,
    "unsqueeze": lambda graph, op: Expr((Use(op.inputs[0], ATOM), ".unsqueeze(1)"), view=True),
}
