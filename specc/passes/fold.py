"""A causal mask of whole sequences becomes the flag that torch's attention has for it."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.passes.dead import dead
from specc.passes.mesh import mesh_of
from specc.spec.core import Layout


def fold(graph: Graph, layout: Layout) -> Graph:
    """Before anything reads what scopes take. A rank that has part of the queries only needs the mask itself."""
    split = {axis for mesh in mesh_of(layout) if mesh.data and not mesh.heads for axis in mesh.tokens}
    return dead(graph.with_ops(_folded(graph, op, split) for op in graph.ops), layout)


def _folded(graph: Graph, op: Op, split: set[str]) -> Op:
    mask = causal_alone(graph, op)
    if mask is None or graph.type(mask.ref).axes[0].name in split:
        return op
    return replace(op.having(causal=True), inputs=op.inputs[:3])


def causal_alone(graph: Graph, op: Op) -> Op | None:
    """The mask of an attention that hides later keys of whole sequences and nothing else."""
    if op.kind != "attention" or len(op.inputs) < 4:
        return None
    mask = graph.op(op.inputs[3].op)
    if mask.kind != "mask" or mask.attr("of") != ("queries", "keys") or len(set(mask.inputs)) > 1:
        return None
    return mask if graph.op(mask.inputs[0].op).kind == "positions" else None
