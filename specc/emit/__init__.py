"""Graph -> one standalone PyTorch file, and the table of its parameters. No torch is imported here."""

from __future__ import annotations

from specc.compile import Compiled, compile_spec, noted
from specc.emit.file import Files, emit_file
from specc.spec.core import Layout, Spec


def emit(spec: Spec, layout: Layout, compiled: Compiled | None = None) -> Files:
    """The spec written out for that layout as text; `compiled` if it is at hand.

    Any exception is a bug; it gets a note that names the spec and the layout.
    """
    compiled = compiled or compile_spec(spec, layout)
    with noted("writing", spec, layout):
        return emit_file(spec.model, layout, compiled.model, compiled.placed, compiled.decode)


__all__ = ["Files", "emit"]
