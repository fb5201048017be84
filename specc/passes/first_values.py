"""Whether the parameters that a spec says a start of are there."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import plain_name
from specc.source import Diagnostic, Node, shown, span_of
from specc.spec.core import Init


def init_findings(graph: Graph, init: Init, root: Node | None = None) -> list[Diagnostic]:
    """E241 for a name that no parameter has, and for a kind that needs a matrix; `root` is the document."""
    params = {plain_name(param.path): param for op in graph.ops for param in op.params}
    known = {name.removesuffix(".weight"): param for name, param in params.items()}
    found: list[Diagnostic] = []
    for name, start in init.parameters:
        param = params.get(name) or known.get(name)
        span = None if root is None else span_of(root, ("init", "parameters", name), True)
        if param is None and name != "embedding":
            help = f"names are {', '.join(sorted(known))}"
            found.append(Diagnostic("E241", f"no parameter is called {shown(name)}", span, help))
        elif start.kind in ("xavier", "kaiming") and param is not None and len(param.axes) < 2:
            message = f"{start.kind} follows the two sides of a matrix, and {name} is a vector"
            found.append(Diagnostic("E241", message, span, "choose another kind"))
    return found
