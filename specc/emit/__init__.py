"""Graph -> one standalone PyTorch file, and the table of its parameters. No torch is imported here."""

from __future__ import annotations

from specc.emit.file import Files, emit_file
from specc.ir.graph import Graph
from specc.lower import lower
from specc.passes import run
from specc.spec.core import Layout, Spec


def compile_spec(spec: Spec, layout: Layout) -> dict[str, Graph]:
    """The graph as lowered and after each pass, by the pass's name."""
    graph = lower(spec.model)
    return {"lower": graph, **dict(run(graph, layout))}


def emit(spec: Spec, layout: Layout, graphs: dict[str, Graph] | None = None) -> Files:
    """The spec compiled for that layout and written out as text; `graphs` if they are at hand."""
    graphs = graphs or compile_spec(spec, layout)
    return emit_file(spec.model, layout, graphs["dead"], graphs["legality"])


__all__ = ["Files", "compile_spec", "emit"]
