"""Whether results kept by name are safe, and worth it: what torch does not say."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Op, dotted
from specc.ir.repeat import layer_scope
from specc.source import Diagnostic, Node, span_of
from specc.spec.core import Layout


def save_findings(graph: Graph, layout: Layout, root: Node | None = None) -> list[Diagnostic]:
    """At most one for each name, in the layout's order: E413 where some layer would get wrong gradients, W501 (a
    warning) where no layer runs less again.

    `graph` has gone through all passes; `root` is the document, for the places. Raises ValueError for a name that no
    layer has.
    """
    found: list[Diagnostic] = []
    blocks = [list(ops) for path, ops in graph.ops_at.items() if path is not None]  # checkpointed together
    for n, name in enumerate(layout.checkpoint.save):
        kept = [(op, ops[place + 1 :]) for ops in blocks for place, op in enumerate(ops) if op.kept == name]
        if not kept:
            raise ValueError(f"no layer has a result {name}")
        span = None if root is None else span_of(root, (*layout.at, "checkpoint", "save", n))
        drawing = next((draw for op, later in kept if (draw := _drawn_after(graph, op, later))), None)
        if drawing is not None:
            message = (
                f"{name} draws random numbers and so does {_local(drawing)} after it: kept, it would not draw again in "
                "the recomputation, and what comes after it would draw other numbers than before"
            )
            found.append(Diagnostic("E413", message, span, "keep something else, or switch its dropout off"))
        elif not any(_runs_again(graph, op, later) for op, later in kept):
            message = f"keeping {name} saves nothing: it is not run again, for backward needs nothing after it"
            help = "keep a result with something after it in the layer that backward needs"
            found.append(Diagnostic("W501", message, span, help, severity="warning"))
    return found


def _runs_again(graph: Graph, op: Op, later: list[Op]) -> bool:
    """Whether recomputation reaches the op: it goes through a layer in order up to the last value that backward needs.

    An op that backward needs the result of must run for it; one that only its operands are needed of need not.
    """
    own = graph.definition(op).saves(op)
    return "out0" in own or "mask" in own or any(graph.definition(other).saves(other) for other in later)


def _drawn_after(graph: Graph, op: Op, later: list[Op]) -> Op | None:
    """The first op after a random one that draws, too."""
    draws = [other for other in (op, *later) if graph.definition(other).random(other)]
    return draws[1] if len(draws) > 1 and draws[0] is op else None


def _local(op: Op) -> str:
    """The op's name in its layer."""
    return dotted((*op.scope[len(layer_scope(op.scope) or ()) :], op.id.rpartition(".")[2]))
