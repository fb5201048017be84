"""How images are taken apart, and vectors are put in front of their patches."""

from __future__ import annotations

from specc.emit.expr.base import Writer, hole, member, read
from specc.emit.leaf_class import CAST
from specc.emit.parts import ATOM, Expr, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op


def _patches(graph: Graph, op: Op) -> Expr:
    size = hole(op, "patch", op.attr("patch"))
    attrs = dict(op.attrs)
    turned = ".permute(2, 0, 1)" if attrs.get("first") == "tokens" else ".transpose(1, 2)"
    parts = ("F.unfold(", Use(op.inputs[0]), ", ", size, ", stride=", size, f"){turned}{CAST * ('dtype' in attrs)}")
    return Expr(parts, alone=True)


def _own_tokens(graph: Graph, op: Op) -> Expr:
    """The vectors as many times as there are samples, and tokens before and behind them."""
    at, by_row = op.number("at"), graph.type(op.inputs[0]).axes[0].name == "batch"
    x = Use(op.inputs[0], ATOM, named=True)
    dim, cut = (1, "[:, {}]") if by_row else (0, "[{}]")
    own = f"{read(graph, op, 0)}{'' if by_row else '[:, None]'}.expand("
    rows: tuple[Part, ...] = (own, "len(", x, "), -1, -1)") if by_row else (own, "-1, ", x, ".size(1), -1)")
    before: tuple[Part, ...] = (x, f"{cut.format(f':{at}')}, ") if at else ()
    behind: tuple[Part, ...] = (x, cut.format(f"{at}:")) if at else (x,)
    return Expr(("torch.cat((", *before, *rows, ", ", *behind, f"), {dim})"), alone=True)


def _time_conv(graph: Graph, op: Op) -> Expr:
    """Of a batch that is fed, what the file computes in."""
    module = member(op, op.params[0]).rpartition(".")[0]
    if "dtype" in dict(op.attrs):
        return Expr((f"{module}(", Use(op.inputs[0], ATOM), f"{CAST})"))
    return Expr((f"{module}(", Use(op.inputs[0]), ")"))


def _time_last(graph: Graph, op: Op) -> Expr:
    turned = ".permute(2, 0, 1)" if dict(op.attrs).get("first") == "tokens" else ".transpose(1, 2)"
    return Expr((Use(op.inputs[0], ATOM), f"{turned}.contiguous()"))  # stages send what is in order


TABLE: dict[str, Writer] = {
    "patches": _patches,
    "own_tokens": _own_tokens,
    "time_conv": _time_conv,
    "time_last": _time_last,
}
