"""Conversions between placements."""

from __future__ import annotations

from specc.emit.expr.base import Writer
from specc.emit.parts import Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, OpError
from specc.ops.conversions import conversion


def _convert(graph: Graph, op: Op) -> Expr:
    mesh, source, target = op.text("mesh"), op.place("src"), op.place("dst")
    made = conversion(source, target)
    if made is None:
        raise OpError(op, f"no function of generated code converts {source} to {target}")
    axis = target.axis or source.axis
    dim = f", {op.outs[0].dim(axis)}" if axis else ""
    return Expr((f"{made.kernel}(", Use(op.inputs[0]), f"{dim}, self.{mesh})"), calls=(made.kernel,))


TABLE: dict[str, Writer] = {
    "convert": _convert,
}
