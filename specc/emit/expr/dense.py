"""Layers with parameters, and what is done to each element."""

from __future__ import annotations

from collections.abc import Callable

from specc.emit.expr.base import Writer, hole, member, number, read
from specc.emit.parts import ATOM, PRODUCT, SUM, Expr, Hole, Use
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.ops.norm import KINDS


def _leaf(graph: Graph, op: Op) -> Expr:
    x = op.inputs[0]
    if op.params[0].role == op.kind:
        module = member(op, op.params[0]).rpartition(".")[0]
        return Expr((f"{module}(", Use(x), ")"))
    weights = (read(graph, op, n) for n in range(len(op.params)))
    return Expr(("F.linear(", Use(x), f", {', '.join(weights)})"))


def _norm(graph: Graph, op: Op) -> Expr:
    """A module, or where there are no parameters the function itself."""
    name = f"{'rms' if op.kind.endswith('rms_norm') else 'layer'}_norm"
    shared = next((axis for axis, how in op.lowering if how == "sum_statistic"), None)
    if op.params:
        return _leaf(graph, op)._replace(calls=(f"split_{name}",) * (shared is not None))
    grouped = "width" in dict(op.attrs)
    size = op.number("width") if grouped else op.outs[0].axes[-1].length
    width, eps, function = hole(op, "width", size), hole(op, "eps", op.attr("eps")), f"F.{name}("
    if shared is not None:
        return Expr((f"split_{name}(", Use(op.inputs[0]), ", ", eps, f", self.{shared})"), calls=(f"split_{name}",))
    if not grouped:
        return Expr((function, Use(op.inputs[0]), ", (", width, ",), eps=", eps, ")"))
    parts = (".unflatten(-1, (-1, ", width, "))")
    return Expr((function, Use(op.inputs[0], ATOM), *parts, ", (", width, ",), eps=", eps, ").flatten(-2)"))


def _with_param(sign: str, need: int, level: int) -> Callable[[Graph, Op], Expr]:
    def write(graph: Graph, op: Op) -> Expr:
        return Expr((Use(op.inputs[0], need), f" {sign} {read(graph, op, 0)}"), level)

    return write


_ACTIVATIONS = {
    **{name: (f"F.{name}(", ")") for name in ("relu", "gelu", "silu", "softplus")},
    **{name: (f"torch.{name}(", ")") for name in ("tanh", "sigmoid")},
    "relu2": ("F.relu(", ").square()"),
    "gelu_tanh": ("F.gelu(", ', approximate="tanh")'),
    "quick_gelu": ("quick_gelu(", ")"),
}


def _activation(graph: Graph, op: Op) -> Expr:
    function = op.text("function")
    before, after = _ACTIVATIONS[function]
    return Expr((before, Use(op.inputs[0]), after), calls=(function,) * before.startswith(function))


def _clamp(graph: Graph, op: Op) -> Expr:
    high = hole(op, "high", op.attr("high"))
    low = ("max=",) if op.attr("low") is None else (hole(op, "low", op.attr("low")), ", ")
    return Expr((Use(op.inputs[0], ATOM), ".clamp(", *low, high, ")"))


def _softcap(graph: Graph, op: Op) -> Expr:
    cap = op.attr("cap")
    return Expr(
        ("torch.tanh(", Use(op.inputs[0], PRODUCT), " / ", hole(op, "cap", cap), ") * ", hole(op, "cap", cap)), PRODUCT
    )


def _scale(graph: Graph, op: Op) -> Expr:
    return Expr(
        (Use(op.inputs[0], PRODUCT), " * ", Hole(f"{op.id}.factor", "factor", number(op.real("factor")))), PRODUCT
    )


def own_random(graph: Graph, op: Op) -> list[str]:
    """Model axes whose ranks hold different parts of what the op draws."""
    if not graph.definition(op).random(op):
        return []
    return [name for name in graph.groups.model if op.types[0].at(name).kind == "S"]


def _dropout(graph: Graph, op: Op) -> Expr:
    axes = "".join(f", self.{name}" for name in own_random(graph, op))
    function = "shard_dropout" if axes else "F.dropout"
    rate = hole(op, "dropout", op.attr("rate"))
    return Expr(
        (f"{function}(", Use(op.inputs[0]), ", ", rate, f", self.training{axes})"),
        calls=(function,) * bool(axes),
        draws=True,
    )


def _drop_path(graph: Graph, op: Op) -> Expr:
    dim = [axis.name for axis in op.outs[0].axes].index("batch")
    rate = hole(op, "rate", op.attr("rate"))
    parts = ("drop_path(", Use(op.inputs[0]), ", ", rate, f", self.training{f', dim={dim}' * bool(dim)})")
    return Expr(parts, calls=("drop_path",), draws=True)


def _jitter(graph: Graph, op: Op) -> Expr:
    parts = ("jitter(", Use(op.inputs[0]), ", ", hole(op, "rate", op.attr("rate")), ", self.training)")
    return Expr(parts, calls=("jitter",))


def _add(graph: Graph, op: Op) -> Expr:
    """A residual update that a norm follows owns a line whatever its length."""
    normed = all(user.kind.endswith("_norm") for user in graph.users(op.ref))
    return Expr((Use(op.inputs[0], SUM), " + ", Use(op.inputs[1], PRODUCT)), SUM, alone=normed)


TABLE: dict[str, Writer] = {
    "embedding": _leaf,
    "linear": _leaf,
    **dict.fromkeys(KINDS, _norm),
    "add_bias": _with_param("+", SUM, SUM),
    "channel_scale": _with_param("*", PRODUCT, PRODUCT),
    "activation": _activation,
    "dropout": _dropout,
    "drop_path": _drop_path,
    "jitter": _jitter,
    "add": _add,
    "sub": lambda graph, op: Expr((Use(op.inputs[0], SUM), " - ", Use(op.inputs[1], PRODUCT)), SUM),
    "mul": lambda graph, op: Expr((Use(op.inputs[0], PRODUCT), " * ", Use(op.inputs[1], ATOM)), PRODUCT),
    "xielu": lambda graph, op: _leaf(graph, op)._replace(calls=("xielu",)),
    "clamp": _clamp,
    "shift": lambda graph, op: Expr((Use(op.inputs[0], SUM), " + ", hole(op, "shift", op.attr("by"))), SUM),
    "softcap": _softcap,
    "scale": _scale,
}
