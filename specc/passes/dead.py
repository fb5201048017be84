"""Remove ops whose results nobody uses."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.spec.core import Layout


def dead(graph: Graph, layout: Layout) -> Graph:
    """Keeps the model's inputs and what output and loss need; a repeat lives with its end, and exports what is read."""
    needed = {*graph.outputs, graph.loss}
    alive = {ref.op for ref in needed}
    moved: dict[Ref, Ref] = {}
    kept: list[Op] = []
    for op in reversed(graph.ops):
        if op.id in alive or op.kind == "input":
            if op.kind == "end":
                op = _exporting(graph, op, needed, moved)
            kept.append(op)
            needed.update(op.inputs)
            alive.update([ref.op for ref in op.inputs])
    if not moved:
        return graph.with_ops(reversed(kept))
    ops = (replace(op, inputs=tuple(moved.get(ref, ref) for ref in op.inputs)) for op in reversed(kept))
    return graph.with_ops(ops, moved=moved)


def _exporting(graph: Graph, end: Op, needed: set[Ref], moved: dict[Ref, Ref]) -> Op:
    """The end with those exports alone that are read; `moved` gets what they are called then."""
    count = len(graph.op(end.text("repeat")).inputs)
    read = [n for n in range(len(end.inputs)) if n < count or Ref(end.id, n) in needed]
    moved |= {Ref(end.id, n): Ref(end.id, at) for at, n in enumerate(read) if n != at}
    pick = {"inputs": end.inputs, "outs": end.outs}
    return replace(end, **{name: tuple(values[n] for n in read) for name, values in pick.items() if values})
