"""The expression of each op as generated code writes it: text with places for operands and constants."""

from __future__ import annotations

from specc.emit.expr.dense import own_random
from specc.emit.parts import Expr
from specc.ir.graph import Graph
from specc.ir.op import Op

__all__ = ["expression", "own_random"]


def expression(graph: Graph, op: Op) -> Expr:
    """Raises KeyError for an op that has no expression of its own."""
    return graph.tables.expressions[op.kind](graph, op)
