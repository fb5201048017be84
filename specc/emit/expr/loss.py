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
    changed = [key for key in ("smoothing", "z_loss") if key in dict(op.attrs)]
    name = f"{'split_' * bool(split)}cross_entropy{'_of' * bool(changed)}"
    more = "".join(f", {key}={op.attr(key)!r}" for key in changed)
    return Expr((f"{name}(", Use(logits), ", ", Use(labels), f"{split}{more})"), calls=(name,))


TABLE: dict[str, Writer] = {
    "cross_entropy": _cross_entropy,
}
