"""What `decode` does with its cache."""

from __future__ import annotations

from specc.emit.expr.base import Writer
from specc.emit.parts import ATOM, Expr, Use
from specc.ir.graph import Graph
from specc.ir.op import Op


def _advance(graph: Graph, op: Op) -> Expr:
    tokens, cache = op.inputs
    return Expr((Use(cache, ATOM), ".advance(", Use(tokens), ")"), alone=True)


def _slots(graph: Graph, op: Op) -> Expr:
    tokens, cache = op.inputs
    return Expr(("torch.arange(", Use(cache, ATOM), ".length, device=", Use(tokens, ATOM, named=True), ".device)"))


def _appended(graph: Graph, op: Op) -> Expr:
    k, v, cache = op.inputs
    return Expr((Use(cache, ATOM), ".append(self, ", Use(k), ", ", Use(v), ")"), alone=True)


TABLE: dict[str, Writer] = {"advance": _advance, "slots": _slots, "appended": _appended}
