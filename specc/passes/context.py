"""Which parts of rows ranks hold where they share rows out: in a row, or as zigzag, by positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ir.types import TOKEN_AXES
from specc.passes.dead import dead
from specc.passes.fold import causal_alone
from specc.passes.mesh import mesh_of
from specc.passes.shapes import shapes
from specc.source import Diagnostic, Node, span_of
from specc.spec.core import Layout

ZIGZAG = "zigzag"


def context(graph: Graph, layout: Layout) -> Graph:
    """Positions say in what order ranks hold rows, and all else reads positions; causal attention without another mask
    goes by the place of its rank's queries alone, so that no mask is as large as a row times a part of it.

    Zigzag, where it is asked for or gives every rank as much to do: rank r of n holds chunks r and 2n - 1 - r.
    """
    axes = [axis for axis in mesh_of(layout) if axis.data and set(axis.tokens) & set(TOKEN_AXES)]
    if len(axes) != 1 or axes[0].heads:  # attention then has whole rows of some heads
        return graph
    masks = {op.id: mask for op in graph.ops if (mask := causal_alone(graph, op))}
    zigzag = _zigzag(graph, layout, bool(masks))
    biases = {mask.id: _bias(mask, zigzag) for mask in masks.values()}
    ops: list[Op] = []
    for op in graph.ops:
        if op.id in masks:
            bias = biases[masks[op.id].id]
            op = op.having(parts=True).changed(inputs=(*op.inputs[:3], *_results(bias)))
        ops.append(op.having(order=ZIGZAG) if op.kind == "positions" and zigzag else op)
        ops += [biases[op.id]] if op.id in biases else []
    scopes = [replace(scope, inputs=tuple(_taken(scope.inputs, biases))) for scope in graph.scopes]
    return dead(shapes(graph.with_ops(ops, scopes), layout), layout)


def _bias(mask: Op, zigzag: bool) -> Op:
    made = Op(f"{mask.id}_bias", "causal_bias", mask.inputs[:1], scope=mask.scope, hint="mask", at=mask.at)
    made = made.having(chunks=1 + zigzag)
    return made.changed(hints=("early", "late")) if zigzag else made


def _results(bias: Op) -> tuple[Ref, ...]:
    return tuple(Ref(bias.id, n) for n in range(bias.number("chunks")))


def _taken(refs: tuple[Ref, ...], biases: Mapping[str, Op]) -> Iterator[Ref]:
    """What a scope takes, with what is made of masks behind these."""
    for ref in refs:
        yield ref
        if ref.op in biases:
            yield from _results(biases[ref.op])


def _zigzag(graph: Graph, layout: Layout, gains: bool) -> bool:
    if layout.cp == 1 or layout.context.order == "contiguous" or in_a_row(graph):
        return False
    return layout.context.order == ZIGZAG or gains


def in_a_row(graph: Graph) -> tuple[Op, ...]:
    """Ops that need tokens as they follow each other: what mixes them. What goes by masks has keys, and positions."""
    return tuple(op for op in graph.ops if set(graph.facts(op).mix) & set(TOKEN_AXES))


def context_findings(graph: Graph, layout: Layout, root: Node | None = None) -> list[Diagnostic]:
    """E441 where zigzag is asked for, and something needs tokens in a row. `graph` is typed, and not placed."""
    if layout.cp == 1 or layout.context.order != ZIGZAG:
        return []
    kinds = list(dict.fromkeys(op.kind for op in in_a_row(graph)))
    if not kinds:
        return []
    span = None if root is None else span_of(root, (*layout.at, "cp", "order"))
    message = f"{', '.join(kinds)} needs tokens as they follow each other, and zigzag gives a rank two parts of a row"
    return [Diagnostic("E441", message, span, "give order: contiguous, or leave order out")]
