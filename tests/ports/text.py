"""How calls of kernels are written."""

from __future__ import annotations

from collections.abc import Mapping

from specc.emit.expr.base import Writer, hole, member, read
from specc.emit.parts import ATOM, Expr, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.ir.types import Axis


def turned(axes: tuple[Axis, ...]) -> str:
    """What puts the batch first where tokens are, and back."""
    return ".transpose(0, 1)" if len(axes) > 1 and axes[1].name == "batch" else ""


def module_of(op: Op) -> str:
    """The module that holds the parameters of an op."""
    return member(op, op.params[0]).rpartition(".")[0]


def called(name: str, *attrs: str, ordered: bool = False, lowered: Mapping[str, str] | None = None) -> Writer:
    """A call on all operands, parameters and attributes, and on the mesh axes over which ranks exchange anything.

    `ordered`: the function wants the batch first. `lowered`: what it is called for a lowering.
    """

    def made(graph: Graph, op: Op) -> Expr:
        function = next(((lowered or {}).get(how, name) for _, how in op.lowering), name)
        parts: list[Part] = []
        for ref in op.inputs:
            turn = turned(graph.type(ref).axes) if ordered else ""
            parts += [", ", Use(ref, ATOM if turn else 0), turn]
        for n in range(len(op.params)):
            parts += [", ", read(graph, op, n)]
        for attr in attrs:
            parts += [", ", hole(op, attr, op.attr(attr))]
        parts += [f", self.{axis}" for axis, _ in op.lowering]
        return Expr((f"{function}(", *parts[1:], f"){turned(op.outs[0].axes) if ordered else ''}"), calls=(function,))

    return made


def through(kernel: str) -> Writer:
    """A call of the module that holds the parameters, on all operands; its forward calls the kernel."""

    def made(graph: Graph, op: Op) -> Expr:
        operands: list[Part] = [part for ref in op.inputs for part in (", ", Use(ref))]
        return Expr((f"{module_of(op)}(", *operands[1:], ")"), calls=(kernel,))

    return made
