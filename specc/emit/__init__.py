"""Graph -> one standalone PyTorch file, and the table of its parameters. No torch is imported here."""

from __future__ import annotations

from specc.emit.file import Files, emit_file
from specc.lower import lower
from specc.passes import compile_graph
from specc.passes.dead import dead
from specc.passes.shapes import shapes
from specc.spec.core import Layout, Spec


def emit(spec: Spec, layout: Layout) -> Files:
    """Compile the spec for that layout and write it out as text."""
    lowered = lower(spec.model)
    return emit_file(spec.model, layout, dead(shapes(lowered, layout), layout), compile_graph(lowered, layout))


__all__ = ["Files", "emit"]
