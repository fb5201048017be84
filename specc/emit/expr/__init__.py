"""The expression of each op as generated code writes it: text with places for operands and constants."""

from __future__ import annotations

from specc.emit.expr import attention, collectives, dense, loss, sources
from specc.emit.expr.base import Writer
from specc.emit.expr.dense import own_random
from specc.emit.parts import Expr
from specc.ir.graph import Graph
from specc.ir.op import Op

__all__ = ["expression", "own_random"]

_TABLE: dict[str, Writer] = {
    **dense.TABLE,
    **attention.TABLE,
    **sources.TABLE,
    **collectives.TABLE,
    **loss.TABLE,
}


def expression(graph: Graph, op: Op) -> Expr:
    """Raises KeyError for an op that has no expression of its own."""
    return _TABLE[op.kind](graph, op)
