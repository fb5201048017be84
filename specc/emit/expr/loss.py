"""What the scope of the loss computes."""

from __future__ import annotations

from specc.emit.expr.base import Writer
from specc.emit.parts import Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op


def _cross_entropy(graph: Graph, op: Op) -> Expr:
    logits, labels = op.inputs
    vocab = graph.type(logits).axes[-1].length
    split = "".join(f", {vocab}, self.{axis}" for axis, _ in op.lowering)
    name = f"{'split_' * bool(split)}cross_entropy"
    return Expr((f"{name}(", Use(logits), ", ", Use(labels), f"{split})"), calls=(name,))


TABLE: dict[str, Writer] = {
    "cross_entropy": _cross_entropy,
}
