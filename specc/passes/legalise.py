"""Rewrite what placing cannot split as it stands: the bias of a row-parallel linear is added after the reduction."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ops.base import shardable
from specc.passes.mesh import mesh_of
from specc.spec.core import Layout


def legalise(graph: Graph, layout: Layout) -> Graph:
    """linear(x, w, b) whose inner axis is split becomes add_bias(linear(x, w), b)."""
    moved: dict[Ref, Ref] = {}
    ops: list[Op] = []
    for op in graph.ops:
        if moved:
            op = op.changed(inputs=tuple(moved.get(ref, ref) for ref in op.inputs))
        if op.kind == "linear" and len(op.params) == 2 and _row_parallel(op, layout):
            weight, bias = op.params
            ops.append(op.changed(params=(weight,)))
            added = op.changed(id=f"{op.id}_bias", kind="add_bias", inputs=(op.ref,), params=(bias,), attrs=())
            ops.append(added)
            moved[op.ref] = added.ref
        else:
            ops.append(op)
    return graph.with_ops(ops, moved=moved)


def _row_parallel(op: Op, layout: Layout) -> bool:
    out, inner = op.params[0].axes
    return any(shardable(inner, mesh) and not shardable(out, mesh) for mesh in mesh_of(layout))
