"""Graph -> one standalone PyTorch file, and the table of its parameters. No torch is imported here."""

from __future__ import annotations

from specc.emit.file import Files, emit_file
from specc.lower import lower
from specc.passes import run
from specc.spec.core import Layout, Spec


def emit(spec: Spec, layout: Layout) -> Files:
    """Compile the spec for that layout and write it out as text."""
    graphs = dict(run(lower(spec.model), layout))
    return emit_file(spec.model, layout, graphs["dead"], graphs["legality"])


__all__ = ["Files", "emit"]
