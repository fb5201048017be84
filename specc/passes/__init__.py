"""The pipeline of passes, each Graph -> Graph under a layout, valid in and valid out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from specc.ir.graph import Graph
from specc.passes.check import check
from specc.passes.checkpoint import checkpoint
from specc.passes.context import context
from specc.passes.dead import dead
from specc.passes.decode import decode
from specc.passes.fold import fold
from specc.passes.legalise import legalise
from specc.passes.legality import legality
from specc.passes.order import order
from specc.passes.place import place
from specc.passes.precision import precision
from specc.passes.rules import rules
from specc.passes.shapes import shapes
from specc.passes.stages import stages
from specc.spec.core import Checkpoint, Layout

Pass = Callable[[Graph, Layout], Graph]

PASSES: tuple[Pass, ...] = (
    shapes,
    rules,
    dead,
    fold,
    context,
    order,
    precision,
    stages,
    legalise,
    place,
    check,
    checkpoint,
    legality,
)


def typed(graph: Graph, layout: Layout | None = None) -> Graph:
    """The graph as it is before it is cut and placed; without a layout, for one device."""
    for step in PASSES[: PASSES.index(order)]:
        graph = step(graph, layout or Layout())
    return graph


def second(graph: Graph, layout: Layout) -> Graph:
    """The graph of `decode`, the second entry of a model with a cache, after all passes that it needs."""
    alone = replace(layout, checkpoint=Checkpoint())
    for step in (shapes, rules, dead, decode, precision, legalise, place, check, checkpoint, legality):
        graph = step(graph, alone)
    return graph


def run(graph: Graph, layout: Layout, first: Pass | None = None) -> Iterator[tuple[str, Graph]]:
    """The graph after each pass, with the pass's name; from `first` on where others have been through."""
    for step in PASSES[PASSES.index(first or PASSES[0]) :]:
        graph = step(graph, layout)
        yield step.__name__, graph


def compile_graph(graph: Graph, layout: Layout) -> Graph:
    """The graph after all passes."""
    for _, result in run(graph, layout):
        graph = result
    return graph
