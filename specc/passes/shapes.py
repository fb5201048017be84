"""Fill in the tensor type of every value."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Likeness, Op, likeness
from specc.ir.types import TensorType
from specc.spec.core import Layout


def shapes(graph: Graph, layout: Layout) -> Graph:
    """One walk in op order; each op's shape rule gives its results. Equal types are one object."""
    types: dict[str, tuple[TensorType, ...]] = {}
    known: dict[Likeness, tuple[TensorType, ...]] = {}
    same: dict[TensorType, TensorType] = {}
    typed: list[Op] = []
    for op in graph.ops:
        ins = tuple([types[ref.op][ref.out] for ref in op.inputs])
        key = likeness(op, ins)
        outs = known.get(key)
        if outs is None:
            outs = tuple([same.setdefault(type, type) for type in graph.definition(op).infer(op, ins)])
            known[key] = outs
        types[op.id] = outs
        typed.append(op if op.outs == outs else op.changed(outs=outs))
    return graph.with_ops(typed)
