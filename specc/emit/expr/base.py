"""What the expressions of several families share."""

from __future__ import annotations

from collections.abc import Callable

from specc.emit.leaf import held
from specc.emit.leaf_class import read as read_leaf
from specc.emit.parts import Expr, Hole
from specc.ir.graph import Graph
from specc.ir.op import Op, Param, in_model
from specc.ir.types import Axis, Spmd

Writer = Callable[[Graph, Op], Expr]
"""Writes the expression of an op."""


def number(value: float) -> str:
    """A constant as one writes it: a square root of a whole number as such."""
    square = round(value * value)
    if isinstance(value, float) and value > 1 and not value.is_integer() and square**0.5 == value:
        return f"{square}**0.5"
    return repr(value)


def hole(op: Op, name: str, value: object, default: object = None, before: str = "", after: str = "") -> Hole:
    """A constant of an op; `default` and what stands around it are those of a keyword argument."""
    return Hole(f"{op.id}.{name}", name, repr(value), before, after, None if default is None else repr(default))


def member(op: Op, param: Param) -> str:
    """`self.attention.q` seen from the op's own scope."""
    return "self." + ".".join(str(part) for part in param.path[len(in_model(op.scope)) :])


def read(graph: Graph, op: Op, n: int) -> str:
    """A parameter as the op uses it: `self.o.bias` or its local part."""
    return read_leaf(member(op, op.params[n]), held(graph, op, n))


def local_size(graph: Graph, axis: Axis, type: Spmd) -> int:
    """Size of an axis on one rank."""
    sizes = {mesh.name: mesh.size for mesh in graph.mesh}
    local = axis.length
    for name in type.shards(axis):
        local = -(-local // sizes[name])
    return local
