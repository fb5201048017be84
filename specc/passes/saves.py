"""Whether results kept by name are worth it, and safe: what torch does not say."""

from __future__ import annotations

from specc.ir.graph import Graph, inside
from specc.ir.op import Layer, Op, Path
from specc.ops import definition
from specc.source import Diagnostic, Node, span_of
from specc.spec.core import Layout


def save_findings(graph: Graph, layout: Layout, root: Node | None) -> list[Diagnostic]:
    """E413 where keeping would give wrong gradients, W501 where it saves nothing; one for each name.

    `graph` has gone through all passes; `root` is the document, for the places.
    """
    spans = {
        name: None if root is None else span_of(root, (*layout.at, "checkpoint", "save", n))
        for n, name in enumerate(layout.checkpoint.save)
    }
    found: dict[str, Diagnostic] = {}
    for op in graph.ops:
        if not op.kept:
            continue
        block = next(op.scope[: n + 1] for n, part in enumerate(op.scope) if isinstance(part, Layer))
        later = _later(graph, op, block)
        if definition(op.kind).random(op) and any(definition(other.kind).random(other) for other in later):
            found[op.kept] = Diagnostic(
                "E413",
                f"{op.kept} draws random numbers and so does a later op of its block: kept, it would not draw again in "
                "the recomputation, and the later op would draw other numbers than before",
                spans[op.kept],
                "keep something else, or switch its dropout off",
            )
        elif not _pays(graph, op, later):
            found.setdefault(
                op.kept,
                Diagnostic(
                    "W501",
                    f"keeping {op.kept} saves nothing: no later op of its block needs it, so it is not run again",
                    spans[op.kept],
                    "keep a result that something later in the block is computed from",
                    severity="warning",
                ),
            )
    return [found[name] for name in layout.checkpoint.save if name in found]


def _later(graph: Graph, op: Op, block: Path) -> list[Op]:
    ops = [other for other in graph.ops if inside(other.scope, block)]
    return ops[ops.index(op) + 1 :]


def _pays(graph: Graph, op: Op, later: list[Op]) -> bool:
    """Whether backward of a later op needs a value computed from this: recomputation ends at the last such value."""
    reached = {op.id}
    for other in later:
        if any(ref.op in reached for ref in other.inputs):
            needs = definition(other.kind).saves(other)
            if any(f"in{n}" in needs for n, ref in enumerate(other.inputs) if ref.op in reached):
                return True
            if "out0" in needs or "mask" in needs:
                return True
            reached.add(other.id)
    return False
