"""Inputs that a document lists and no op reads."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.source import Diagnostic, Node, span_of


def idle_findings(graph: Graph, listed: tuple[str, ...], root: Node | None = None) -> list[Diagnostic]:
    """E249 for each; `graph` has gone through `dead`, `root` is the document."""
    used = {op.hint for op in graph.ops if op.kind == "input" and graph.users(op.ref)}
    found: list[Diagnostic] = []
    for name in dict.fromkeys(listed):
        if name not in used:
            span = None if root is None else span_of(root, ("inputs", listed.index(name)))
            message = f"{name} would be read by nothing in this model"
            found.append(Diagnostic("E249", message, span, f"leave {name} out"))
    return found
