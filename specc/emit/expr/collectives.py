"""Conversions between placements."""

from __future__ import annotations

from specc.emit.expr.base import Writer
from specc.emit.parts import Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, OpError


def _convert(graph: Graph, op: Op) -> Expr:
    mesh, source, target = op.text("mesh"), op.place("src"), op.place("dst")
    names = {
        ("P", "I"): "all_reduce",
        ("P", "S"): "reduce_scatter",
        ("I", "R"): "copy_to_shards",
        ("S", "R"): "all_gather",
        ("S", "I"): "all_gather_whole",
        ("R", "S"): "shard",
    }
    name = names.get((source.kind, target.kind))
    if name is None:
        raise OpError(op, f"no function of generated code converts {source} to {target}")
    axis = target.axis or source.axis
    dim = f", {op.outs[0].dim(axis)}" if axis else ""
    return Expr((f"{name}(", Use(op.inputs[0]), f"{dim}, self.{mesh})"), calls=(name,))


TABLE: dict[str, Writer] = {
    "convert": _convert,
}
