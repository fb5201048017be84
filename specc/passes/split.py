"""What torch does where a schedule finds gradients of weights apart from those of inputs."""

from __future__ import annotations

from collections.abc import Iterator

from specc.ir.graph import Graph
from specc.ir.op import Op, Ref, Stage
from specc.ir.parameters import template
from specc.ir.segments import segments
from specc.ir.tree import LOSS
from specc.source import Diagnostic, Node, span_of
from specc.spec.core import Layout


def split_findings(graph: Graph, layout: Layout, root: Node | None = None) -> list[Diagnostic]:
    """E435 for weights whose gradients it cannot find, W503 for what runs again many times.

    `graph` has gone through all passes; `root` is the document, for the places.
    """
    return [*_apart(graph, layout, root), *_again(graph, layout, root)] if layout.pp.splits else []


def _apart(graph: Graph, layout: Layout, root: Node | None) -> Iterator[Diagnostic]:
    """Torch goes back from where a weight meets what follows from the input of the stage, once for each weight: where
    one weight stands before another on a way that does not, it would have to go there twice.
    """
    found = next(_unreached(graph), None)
    if found is None:
        return
    stage, name = found
    span = None if root is None else span_of(root, (*layout.at, "pp", "schedule"))
    message = (
        f"{layout.pp.schedule} goes back for inputs and weights apart, which torch cannot in stage {stage}: "
        f"{name} reads nothing that comes from the stage before"
    )
    help = "use interleaved_1f1b or looped_bfs; or, beside an encoder, starts that let stage 0 begin the decoder, too"
    yield Diagnostic("E435", message, span, help)


def _unreached(graph: Graph) -> Iterator[tuple[int, str]]:
    """Weights, by stage, that read what has a gradient, but nothing that follows from the input of their stage."""
    reached: set[Ref] = set()
    for op in graph.ops:
        if op.kind == "cut":
            reached |= {Ref(op.id, n) for n, out in enumerate(op.outs) if out.grad}
        elif op.kind in ("repeat", "end"):
            reached |= {Ref(op.id, n) for n, ref in enumerate(op.inputs) if ref in reached}
        elif any(ref in reached for ref in op.inputs):
            reached |= {Ref(op.id, n) for n, out in enumerate(op.outs) if out.grad}
        elif any(param.trained for param in op.params) and any(graph.type(ref).grad for ref in op.inputs):
            stage = _stage(op)
            if stage:
                yield stage, ".".join(template(op.params[0].path))


def _stage(op: Op) -> int:
    first = op.scope[0] if op.scope and op.scope[:1] != LOSS else None
    return first.number if isinstance(first, Stage) else 0


def _again(graph: Graph, layout: Layout, root: Node | None) -> Iterator[Diagnostic]:
    parts = [part for layer in segments(graph).values() for part in layer if part.again]
    if parts:
        times = 1 + max(part.weights for part in parts)
        message = (
            f"{layout.pp.schedule} goes back for inputs and for each weight apart, and what runs again does so each "
            f"time: up to {times} times instead of once, and holds what it makes until then"
        )
        span = None if root is None else span_of(root, (*layout.at, "checkpoint"))
        yield Diagnostic("W503", message, span, "leave checkpoint out, or use another schedule", severity="warning")
