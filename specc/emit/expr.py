"""The expression of each op as generated code writes it: text with places for operands and constants."""

from __future__ import annotations

from collections.abc import Callable

from specc.emit.leaf import held
from specc.emit.leaf_class import read as read_leaf
from specc.emit.parts import ATOM, PRODUCT, SUM, Expr, Hole, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, OpError, Param, Ref, in_model
from specc.ir.types import Axis, Spmd
from specc.ops import definition


def expression(graph: Graph, op: Op) -> Expr:
    """Raises KeyError for an op that has no expression of its own."""
    return _TABLE[op.kind](graph, op)


def number(value: float) -> str:
    """A constant as one writes it: a square root of a whole number as such."""
    square = round(value * value)
    if isinstance(value, float) and value > 1 and not value.is_integer() and square**0.5 == value:
        return f"{square}**0.5"
    return repr(value)


def _hole(op: Op, name: str, value: object, default: object = None, before: str = "", after: str = "") -> Hole:
    return Hole(f"{op.id}.{name}", name, repr(value), before, after, None if default is None else repr(default))


def _module(op: Op, param: Param) -> str:
    """`self.attention.q` seen from the op's own scope."""
    return "self." + ".".join(str(part) for part in param.path[len(in_model(op.scope)) :])


def read(graph: Graph, op: Op, n: int) -> str:
    """A parameter as the op uses it: `self.o.bias`, or its local part."""
    name = _module(op, op.params[n])
    return read_leaf(name, held(graph, op, n))


def _leaf(graph: Graph, op: Op) -> Expr:
    x = op.inputs[0]
    if op.params[0].role == op.kind:
        module = _module(op, op.params[0]).rpartition(".")[0]
        return Expr((f"{module}(", Use(x), ")"))
    weights = ", ".join(read(graph, op, n) for n in range(len(op.params)))
    return Expr(("F.linear(", Use(x), f", {weights})"))


def local_size(graph: Graph, axis: Axis, type: Spmd) -> int:
    """Size of an axis on one rank."""
    sizes = {mesh.name: mesh.size for mesh in graph.mesh}
    local = axis.length
    for name in type.shards(axis):
        local = -(-local // sizes[name])
    return local


def _split(graph: Graph, op: Op) -> Expr:
    axes = op.outs[0].axes
    heads = local_size(graph, axes[1], op.types[0])
    return Expr(
        (
            Use(op.inputs[0], ATOM),
            ".unflatten(-1, (",
            _hole(op, axes[1].name, heads),
            ", ",
            _hole(op, axes[3].name, axes[3].size),
            ")).transpose(1, 2)",
        )
    )


def _attention(graph: Graph, op: Op) -> Expr:
    q, k, v, *mask = op.inputs
    causal = bool(op.attr("causal"))
    parts: list[Part] = ["F.scaled_dot_product_attention(", Use(q), ", ", Use(k), ", ", Use(v)]
    if mask and causal:
        parts += [", causal(", Use(mask[0]), ")"]
    elif mask:
        parts += [", ", Use(mask[0])]
    parts.append(
        _hole(op, "dropout", op.attr("dropout"), 0.0, before=", dropout_p=", after=" if self.training else 0.0")
    )
    parts.append(_hole(op, "causal", causal and not mask, False, before=", is_causal="))
    parts.append(Hole(f"{op.id}.scale", "scale", repr(op.attr("scale")), before=", scale=", default="None"))
    parts.append(_hole(op, "grouped", op.attr("grouped"), False, before=", enable_gqa="))
    return Expr((*parts, ")"))


def _positions(graph: Graph, op: Op) -> Expr:
    """The length is that of the operand's axis; a shard of it is as many times longer as there are ranks."""
    like = op.inputs[0]
    axis = op.outs[0].axes[0]
    dim = [a.name for a in graph.type(like).axes].index(axis.name)
    whole = "".join(f" * self.{name}.size()" for name in graph.spmd(like).shards(axis))
    use = Use(like, ATOM, named=True)
    return Expr(("torch.arange(", use, f".size({dim}){whole}, device=", use, ".device)"))


def _rope_table(graph: Graph, op: Op) -> Expr:
    scaling = op.attr("scaling")
    kind, *numbers = scaling if isinstance(scaling, tuple) else ("",)
    name = f"{kind}_rope_table" if kind else "rope_table"
    parts: list[Part] = [f"{name}(", Use(op.inputs[0])]
    for key, value in (("head_dim", op.attr("head_dim")), ("theta", op.attr("theta"))):
        parts += [", ", _hole(op, key, value)]
    for n, value in enumerate(numbers):
        parts += [", ", _hole(op, f"scaling{n}", value)]
    return Expr((*parts, ")"))


def _sinusoid(graph: Graph, op: Op) -> Expr:
    like = _latest(graph, op, op.inputs[1])
    dtype = Use(like, ATOM, named=True)
    return Expr(
        ("sinusoid(", Use(op.inputs[0]), ", ", _hole(op, "d_model", op.attr("d_model")), ").to(", dtype, ".dtype)")
    )


def _latest(graph: Graph, op: Op, ref: Ref) -> Ref:
    """The value or the last conversion of it before the op: all have one dtype."""
    found = ref
    for other in graph.ops:
        if other.id == op.id:
            break
        if other.kind == "convert" and graph.origin(other.ref) == ref and other.scope == op.scope:
            found = other.ref
    return found


_ACTIVATIONS = {"relu": ("F.relu(", ")"), "gelu": ("F.gelu(", ")"), "silu": ("F.silu(", ")")}
_ACTIVATIONS["gelu_tanh"] = ("F.gelu(", ', approximate="tanh")')


def _activation(graph: Graph, op: Op) -> Expr:
    before, after = _ACTIVATIONS[op.text("function")]
    return Expr((before, Use(op.inputs[0]), after))


def _convert(graph: Graph, op: Op) -> Expr:
    mesh, source, target = op.text("mesh"), op.place("src"), op.place("dst")
    names = {
        ("P", "I"): "all_reduce",
        ("P", "S"): "reduce_scatter",
        ("I", "R"): "copy_to_shards",
        ("S", "R"): "all_gather",
        ("R", "S"): "shard",
    }
    name = names.get((source.kind, target.kind))
    if name is None:
        raise OpError(op, f"no function of generated code converts {source} to {target}")
    axis = target.axis or source.axis
    dim = f", {op.outs[0].dim(axis)}" if axis else ""
    return Expr((f"{name}(", Use(op.inputs[0]), f"{dim}, self.{mesh})"))


def _scale(graph: Graph, op: Op) -> Expr:
    return Expr(
        (Use(op.inputs[0], PRODUCT), " * ", Hole(f"{op.id}.factor", "factor", number(op.real("factor")))), PRODUCT
    )


def _padding_mask(graph: Graph, op: Op) -> Expr:
    return Expr((Use(op.inputs[0], ATOM), ".ne(", _hole(op, "pad", op.attr("pad")), ")[:, None, None]"))


def own_random(graph: Graph, op: Op) -> list[str]:
    """Model axes whose ranks hold different parts of what the op draws."""
    if not definition(op.kind).random(op):
        return []
    return [name for name in graph.groups.model if op.types[0].at(name).kind == "S"]


def _dropout(graph: Graph, op: Op) -> Expr:
    axes = "".join(f", self.{name}" for name in own_random(graph, op))
    function = "shard_dropout" if axes else "F.dropout"
    rate = _hole(op, "dropout", op.attr("rate"))
    return Expr((f"{function}(", Use(op.inputs[0]), ", ", rate, f", self.training{axes})"))


def _with_param(sign: str, need: int, level: int) -> Callable[[Graph, Op], Expr]:
    return lambda graph, op: Expr((Use(op.inputs[0], need), f" {sign} {read(graph, op, 0)}"), level)


def _cross_entropy(graph: Graph, op: Op) -> Expr:
    logits, labels = op.inputs
    vocab = graph.type(logits).axes[-1].length
    split = "".join(f", {vocab}, self.{axis}" for axis, _ in op.lowering)
    return Expr((f"{'split_' * bool(split)}cross_entropy(", Use(logits), ", ", Use(labels), f"{split})"))


_TABLE: dict[str, Callable[[Graph, Op], Expr]] = {
    "embedding": _leaf,
    "linear": _leaf,
    "rms_norm": _leaf,
    "layer_norm": _leaf,
    "add_bias": _with_param("+", SUM, SUM),
    "channel_scale": _with_param("*", PRODUCT, PRODUCT),
    "split": _split,
    "merge": lambda graph, op: Expr((Use(op.inputs[0], ATOM), ".transpose(1, 2).flatten(2)")),
    "rope": lambda graph, op: Expr(("apply_rope(", Use(op.inputs[0]), ", ", Use(op.inputs[1]), ")")),
    "attention": _attention,
    "positions": _positions,
    "rope_table": _rope_table,
    "sinusoid": _sinusoid,
    "padding_mask": _padding_mask,
    "activation": _activation,
    "dropout": _dropout,
    "add": lambda graph, op: Expr((Use(op.inputs[0], SUM), " + ", Use(op.inputs[1], PRODUCT)), SUM),
    "mul": lambda graph, op: Expr((Use(op.inputs[0], PRODUCT), " * ", Use(op.inputs[1], ATOM)), PRODUCT),
    "scale": _scale,
    "convert": _convert,
    "cross_entropy": _cross_entropy,
}
