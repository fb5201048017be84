"""Heads, rotations and the attention core."""

from __future__ import annotations

from specc.emit.expr.base import Writer, hole, local_size, number, read
from specc.emit.parts import ATOM, PRODUCT, SUM, Expr, Hole, Part, Use
from specc.ir.graph import Graph
from specc.ir.op import Op, OpError
from specc.ops import own


def _split(graph: Graph, op: Op) -> Expr:
    axes = op.outs[0].axes
    heads = local_size(graph, axes[1], op.types[0])
    return Expr(
        (
            Use(op.inputs[0], ATOM),
            ".unflatten(-1, (",
            hole(op, axes[1].name, heads),
            ", ",
            hole(op, axes[3].name, axes[3].size),
            ")).transpose(1, 2)" if graph.type(op.inputs[0]).axes[0].name == "batch" else ")).permute(1, 2, 0, 3)",
        ),
        alone=True,
        view=True,
    )


def _own_heads(graph: Graph, op: Op) -> Expr:
    """One that all share is every rank's own, as it was gathered."""
    heads, times = op.number("heads"), op.number("times")
    mesh = next((axis for axis, _ in op.lowering), None)
    if mesh is None:
        raise OpError(op, "stands where every rank needs all heads")
    axis = own.axis_of(graph.ins(op))
    if heads == 1 and axis.factors:
        return Expr((Use(op.inputs[0], ATOM),), view=True)
    width = hole(op, "width", axis.length // heads)
    count = (", ", hole(op, "times", times)) if own.copies(op) else ()
    name = "own_heads" if own.copies(op) else "own_head"
    dim = "" if axis.factors else ", dim=1"
    return Expr(
        (f"{name}(", Use(op.inputs[0]), ", ", width, *count, f", self.{mesh}{dim})"), calls=(name,), view=not count
    )


def _attention(graph: Graph, op: Op) -> Expr:
    q, k, v, *masks = op.inputs
    name = {1: "attention_of_part", 2: "attention_of_chunks"}.get(len(masks)) if "parts" in dict(op.attrs) else None
    parts: list[Part] = [f"{name or 'F.scaled_dot_product_attention'}(", Use(q), ", ", Use(k), ", ", Use(v)]
    parts += [part for mask in masks for part in (", ", Use(mask))]
    if len(masks) > 1:
        parts += [f", self.{mesh}" for mesh in graph.spmd(q).shards(op.outs[0].axes[2])]
    parts.append(
        hole(op, "dropout", op.attr("dropout"), 0.0, before=", dropout_p=", after=" if self.training else 0.0")
    )
    parts.append(hole(op, "causal", op.attr("causal"), False, before=", is_causal="))
    parts.append(Hole(f"{op.id}.scale", "scale", repr(op.attr("scale")), before=", scale=", default="None"))
    parts.append(hole(op, "grouped", op.attr("grouped"), False, before=", enable_gqa="))
    return Expr((*parts, ")"), calls=(name,) if name else (), alone=True)


def _plain_attention(graph: Graph, op: Op) -> Expr:
    q, k, v, *mask = op.inputs
    capped, sinks = op.attr("softcap") is not None, bool(op.params)
    name = f"{'capped_' * capped}{'sink_' * sinks}attention"
    parts: list[Part] = [f"{name}(", Use(q), ", ", Use(k), ", ", Use(v), ", ", Use(mask[0]) if mask else "None"]
    parts += [f", {read(graph, op, 0)}"] if sinks else []
    parts += [", ", Hole(f"{op.id}.scale", "scale", number(op.real("scale")))]
    parts += [", ", hole(op, "softcap", op.attr("softcap"))] if capped else []
    rate = hole(op, "dropout", op.attr("dropout"), 0.0, before=", ", after=" if self.training else 0.0")
    return Expr((*parts, rate, ")"), calls=(name,), alone=True)


def _rope(graph: Graph, op: Op) -> Expr:
    x, table = op.inputs
    partial = graph.type(x).axes[-1].size != graph.type(table).axes[-1].size
    name = f"apply_{'partial_' * partial}{'adjacent_' * ('adjacent' in dict(op.attrs))}rope"
    return Expr((f"{name}(", Use(x), ", ", Use(table), ")"), calls=(name,))


def _temper(graph: Graph, op: Op) -> Expr:
    return Expr(("apply_temperature(", Use(op.inputs[0]), ", ", Use(op.inputs[1]), ")"), calls=("apply_temperature",))


def _head_scale(graph: Graph, op: Op) -> Expr:
    scaled = (Use(op.inputs[0], PRODUCT), f" * {read(graph, op, 0)}[:, None]")
    return Expr(scaled, PRODUCT) if len(op.params) == 1 else Expr((*scaled, f" + {read(graph, op, 1)}[:, None]"), SUM)


def _merge(graph: Graph, op: Op) -> Expr:
    rows = op.outs[0].axes[0].name == "batch"
    return Expr((Use(op.inputs[0], ATOM), f".{'transpose(1, 2)' if rows else 'permute(2, 0, 1, 3)'}.flatten(2)"))


def _part(graph: Graph, op: Op) -> Expr:
    parts: list[Part] = [Use(op.inputs[0], ATOM), ".split(("]
    for n, out in enumerate(op.outs):
        parts += [", " * bool(n), hole(op, out.axes[-1].name.rpartition("*")[2], out.axes[-1].size)]
    return Expr((*parts, "), dim=-1)"), alone=True, view=True)


def _join(graph: Graph, op: Op) -> Expr:
    """One that all heads share is repeated for each."""
    x, y = op.inputs
    parts: list[Part] = ["torch.cat((", Use(x), ", ", Use(y, ATOM)]
    heads = op.outs[0].axes[1]
    if graph.type(y).axes[1] != heads:
        parts += [".expand(-1, ", hole(op, heads.name, local_size(graph, heads, op.types[0])), ", -1, -1)"]
    return Expr((*parts, "), dim=-1)"))


TABLE: dict[str, Writer] = {
    "split": _split,
    "merge": _merge,
    "own_heads": _own_heads,
    "rope": _rope,
    "attention": _attention,
    "plain_attention": _plain_attention,
    "temper": _temper,
    "head_scale": _head_scale,
    "part": _part,
    "join": _join,
}
