"""How one vector of a row of tokens is written."""

from __future__ import annotations

from specc.emit.expr.base import Writer
from specc.emit.parts import ATOM, Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op

_WHOLE = {"first": "[:, 0]", "last": "[:, -1]", "mean": ".mean(1)", "max": ".amax(1)"}
"""Of rows without padding."""


def _pool(graph: Graph, op: Op) -> Expr:
    how = op.text("how")
    if len(op.inputs) == 1:
        return Expr((Use(op.inputs[0], ATOM), _WHOLE[how]))
    name = f"{how}_real"
    return Expr((f"{name}(", Use(op.inputs[0]), ", ", Use(op.inputs[1]), ")"), calls=(name,))


TABLE: dict[str, Writer] = {
    "pool": _pool,
    "squared_error": lambda graph, op: Expr(
        ("squared_error(", Use(op.inputs[0]), ", ", Use(op.inputs[1]), ")"), calls=("squared_error",)
    ),
}
