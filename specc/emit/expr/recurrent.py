"""Calls along a sequence."""

from __future__ import annotations

from specc.emit.expr.base import Writer, hole, member, number, read
from specc.emit.parts import ATOM, Expr, Hole, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ir.types import Axis


def turned(axes: tuple[Axis, ...]) -> str:
    """What puts the batch first where tokens are, and back."""
    return ".transpose(0, 1)" if len(axes) > 1 and axes[1].name == "batch" else ""


def rows(graph: Graph, ref: Ref, named: bool = False) -> tuple[Part, ...]:
    """An operand with the batch first."""
    turn = turned(graph.type(ref).axes)
    return (Use(ref, ATOM if turn else 0, named), turn)


def module_of(op: Op) -> str:
    """The module that holds the parameters of an op."""
    return member(op, op.params[0]).rpartition(".")[0]


def _causal_conv(graph: Graph, op: Op) -> Expr:
    """A call of its module, with what stands in front of a rank's part of a sequence."""
    module, x = module_of(op), rows(graph, op.inputs[0], bool(op.lowering))
    count = op.params[0].axes[1].length - 1
    parts = [part for axis, _ in op.lowering for part in (", halo(", *x, f", {count}, self.{axis})")]
    end = f"){turned(op.outs[0].axes)}"
    return Expr((f"{module}(", *x, *parts, end), calls=("causal_conv", *["halo"] * bool(op.lowering)))


def _document_conv(graph: Graph, op: Op) -> Expr:
    x, first = op.inputs
    parts = (f"{module_of(op)}(", *rows(graph, x), ", ", Use(first), f"){turned(op.outs[0].axes)}")
    return Expr(parts, calls=("document_conv",))


def _later_conv(graph: Graph, op: Op) -> Expr:
    """Parameters are read from outside of the module, whose forward has no cache."""
    x, cache = op.inputs
    weights = [read(graph, op, n) for n in range(len(op.params))]
    weights += ["None"] * (len(weights) == 1)
    count = op.params[0].axes[1].length - 1
    before = (", tail(", Use(cache), f", {module_of(op)}, ", Use(x, named=True), f", {count}))")
    parts = ("causal_conv(", Use(x, named=True), f", {', '.join(weights)}", *before)
    return Expr(parts, calls=("causal_conv", "tail"), alone=True)


def _scan(kernel: str, count: int, **attrs: object) -> Writer:
    """A call on `count` operands and the parameters. Where documents start comes last, a state from a cache.

    `attrs` with their defaults are those of the op.
    """

    def write(graph: Graph, op: Op) -> Expr:
        ranks = [axis for axis, _ in op.lowering]
        name = f"{kernel}_of_part" if ranks else f"later_{kernel}" if op.kind.startswith("later_") else kernel
        parts: list[Part] = [f"{name}("]
        for ref in op.inputs[:count]:
            parts += [*rows(graph, ref), ", "]
        parts.append(", ".join(read(graph, op, n) for n in range(len(op.params))))
        if not op.params:
            parts = parts[:-2]
        parts += [f", self.{axis}" for axis in ranks]
        more = op.inputs[count:]
        if more and name != kernel:
            parts += [", self, ", Use(more[0])]
        for attr, usual in attrs.items():
            parts.append(Hole(f"{op.id}.{attr}", attr, repr(op.attr(attr)), f", {attr}=", "", repr(usual)))
        if more and name == kernel:
            parts += [", first=", Use(more[0])]
        return Expr((*parts, f"){turned(op.outs[0].axes)}"), calls=(name,), alone=True)

    return write


def _block_linear(graph: Graph, op: Op) -> Expr:
    return Expr((f"{module_of(op)}(", Use(op.inputs[0]), ")"), calls=("block_linear",))


def _head_rates(graph: Graph, op: Op) -> Expr:
    factor = Hole(f"{op.id}.factor", "factor", number(op.real("factor")))
    like = (", ", Use(op.inputs[0], named=True), ")")
    return Expr(("head_rates(", hole(op, "heads", op.attr("heads")), ", ", factor, *like), calls=("head_rates",))


TABLE: dict[str, Writer] = {
    "causal_conv": _causal_conv,
    "document_conv": _document_conv,
    "later_conv": _later_conv,
    "state_space": _scan("state_space", 4, low=0.0, high=None),
    "later_state_space": _scan("state_space", 4, low=0.0, high=None),
    "delta_rule": _scan("delta_rule", 5),
    "later_delta_rule": _scan("delta_rule", 5),
    "selective_scan": _scan("selective_scan", 4),
    "later_selective_scan": _scan("selective_scan", 4),
    "gated_recurrence": _scan("gated_recurrence", 3),
    "later_gated_recurrence": _scan("gated_recurrence", 3),
    "block_linear": _block_linear,
    "head_rates": _head_rates,
    "linear_attention": _scan("linear_attention", 4),
    "later_linear_attention": _scan("linear_attention", 4),
}
