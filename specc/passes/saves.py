"""Whether results kept by name are safe, and worth it: what torch does not say."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Op, dotted
from specc.ir.repeat import layer_scope
from specc.ir.segments import Segment, segments
from specc.source import Diagnostic, Node, span_of
from specc.spec.core import Layout


def save_findings(graph: Graph, layout: Layout, root: Node | None = None) -> list[Diagnostic]:
    """At most one for each name, in the layout's order: E413 where some layer would get wrong gradients, E434 where its
    schedule cannot keep it, W501 (a warning) where no layer runs less again.

    `graph` has gone through all passes; `root` is the document, for the places. Raises ValueError for a name that no
    layer has.
    """
    found: list[Diagnostic] = []
    parts = list(segments(graph).values())
    for n, name in enumerate(layout.checkpoint.save):
        kept = [(op, part, m == len(layer) - 1) for layer in parts for m, part in enumerate(layer) for op in part.ops]
        kept = [(op, part, last) for op, part, last in kept if op.kept == name]
        if not kept:
            raise ValueError(f"no layer has a result {name}")
        span = None if root is None else span_of(root, (*layout.at, "checkpoint", "save", n))
        drawing = next((draw for op, part, _ in kept if (draw := _drawn_after(graph, op, part))), None)
        if drawing is not None:
            message = (
                f"{name} draws random numbers and so does {_local(drawing)} after it: kept, it would not draw again in "
                "the recomputation, and what comes after it would draw other numbers than before"
            )
            found.append(Diagnostic("E413", message, span, "keep something else, or switch its dropout off"))
        elif layout.pp.splits and any(part.keeps(op) for op, part, _ in kept):
            message = (
                f"{name} is kept inside of what runs again, which torch does once, and {layout.pp.schedule} needs twice"
            )
            help = "keep the last result of a branch, or nothing, or use another schedule"
            found.append(Diagnostic("E434", message, span, help))
        elif not any(_runs_again(graph, op, part, last) for op, part, last in kept):
            message = f"keeping {name} saves nothing: it is not run again, for backward needs nothing after it"
            help = "keep a result with something after it in the layer that backward needs"
            found.append(Diagnostic("W501", message, span, help, severity="warning"))
    return found


def _runs_again(graph: Graph, op: Op, part: Segment, last: bool) -> bool:
    """Whether recomputation would reach the op if it were not kept: it goes through a part in order up to the last
    value that backward needs.

    An op that backward needs the result of must run for it; one that only its operands are needed of need not. What
    ends a part is kept by the cut, which is not made at the end of a layer.
    """
    own = graph.definition(op).saves(op)
    later = part.ops[part.ops.index(op) + 1 :]
    cut = not part.keeps(op) and not last
    return cut or "out0" in own or "mask" in own or any(graph.definition(other).saves(other) for other in later)


def _drawn_after(graph: Graph, op: Op, part: Segment) -> Op | None:
    """The first op after a random one that draws, too, in the call that is run again."""
    draws = [other for other in part.ops[part.ops.index(op) :] if graph.definition(other).random(other)]
    return draws[1] if len(draws) > 1 and draws[0] is op else None


def _local(op: Op) -> str:
    """The op's name in its layer."""
    return dotted((*op.scope[len(layer_scope(op.scope) or ()) :], op.id.rpartition(".")[2]))
