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
    number = dict(op.attrs).get("number")  # of several in one module
    whose = "self" if number is None else f"(self, {number})"
    return Expr((Use(cache, ATOM), f".append({whose}, ", Use(k), ", ", Use(v), ")"), alone=True)


TABLE: dict[str, Writer] = {"advance": _advance, "slots": _slots, "appended": _appended}
