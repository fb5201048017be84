"""Fill in the tensor type of every value."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.ir.types import TensorType
from specc.spec.core import Layout


def shapes(graph: Graph, layout: Layout) -> Graph:
    """One walk in op order; each op's shape rule gives its results."""
    types: dict[str, tuple[TensorType, ...]] = {}
    typed: list[Op] = []
    for op in graph.ops:
        ins = tuple(types[ref.op][ref.out] for ref in op.inputs)
        types[op.id] = graph.definition(op).infer(op, ins)
        typed.append(op if op.outs == types[op.id] else op.changed(outs=types[op.id]))
    return graph.with_ops(typed)
