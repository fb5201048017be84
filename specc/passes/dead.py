"""Remove ops whose results nobody uses."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.spec.core import Layout


def dead(graph: Graph, layout: Layout) -> Graph:
    """Keeps the model's inputs and what output and loss need; a repeat lives with its end."""
    needed = {ref.op for ref in (*graph.outputs, graph.loss)}
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if op.id in needed or op.kind == "input":
            kept.append(op)
            needed.update(ref.op for ref in op.inputs)
    return graph.with_ops(reversed(kept))
