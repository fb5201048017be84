"""Activation checkpointing: which layers are run again in backward, and which results are kept by name."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.graph import Graph, layer_of
from specc.ir.op import Op
from specc.spec.core import Layout


def checkpoint(graph: Graph, layout: Layout) -> Graph:
    """Repeats get `recompute` (every how many layers, None for never); what is kept gets the name of its op."""
    every = 1 if layout.checkpoint.save else layout.checkpoint.every
    return graph.with_ops(_marked(graph, op, every, layout.checkpoint.save) for op in graph.ops)


def _marked(graph: Graph, op: Op, every: int | None, save: tuple[str, ...]) -> Op:
    if op.kind == "repeat":
        return op.having(recompute=every)
    name = ".".join(op.id.split(".")[-2:])
    kept = name in save or (every is not None and graph.definition(op).stays)
    return replace(op, kept=name) if kept and layer_of(op.scope) is not None else op
