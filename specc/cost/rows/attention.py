"""Heads, rotary positions, and attention by the kernel that torch chooses for it."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from specc.cost.saved import Row, Saved
from specc.cost.sizes import Sizes
from specc.ir.graph import Graph
from specc.ir.op import Op, Ref
from specc.ops import own


def _view(op: Op, sizes: Sizes) -> Saved:
    return Saved(view=True, through=(0,))


def _merge(op: Op, sizes: Sizes) -> Saved:
    """What the fused kernel makes lies as it is merged; what the written-out one makes is copied."""
    made = sizes.graph.op(sizes.graph.origin(op.inputs[0]).op)
    fused = made.kind == "attention" and not _written_out(made, sizes)
    return Saved(view=fused and not _by_heads(sizes.graph, made.inputs[0]), through=(0,))


def _by_heads(graph: Graph, ref: Ref) -> bool:
    """Whether attention of a value lies in memory as its axes stand: of what norms and joins make, and of what is
    gathered along another dim than the first. A split of features does not.
    """
    op = graph.op(ref.op)
    if op.kind == "convert" and op.place("dst").kind != "S" and op.outs[0].dim(op.place("src").axis):
        return True
    if op.kind in ("rope", "scale", "mul", "head_scale", "temper", "convert", "part"):
        return _by_heads(graph, op.inputs[0])
    return op.kind != "split"


def _own_heads(op: Op, sizes: Sizes) -> Saved:
    """A gradient is zero where other ranks have their own."""
    return Saved(view=not own.copies(op))


def _rope(op: Op, sizes: Sizes) -> Saved:
    size = sizes.bytes(op.ref)
    return Saved(("in1",), forward=2 * size, backward=3 * size // 2)


def _written_out(op: Op, sizes: Sizes) -> bool:
    """Whether no fused kernel of a CPU will do: with dropout, a bias that learns or has three dims, or values of
    another width."""
    graph = sizes.graph
    masks = [graph.type(ref) for ref in op.inputs[3:]]
    odd = any(mask.grad or len(mask.axes) == 3 for mask in masks)
    width = sizes.dims(op.inputs[0])[-1] != sizes.dims(op.inputs[2])[-1]
    return sizes.on == "cpu" and (bool(op.attr("dropout")) or odd or width)


def _attention(op: Op, sizes: Sizes) -> Saved:
    graph = sizes.graph
    batch, heads, queries = _layout(op, sizes)
    statistic = ("logsumexp", 4 * batch * heads * queries)
    if _written_out(op, sizes):
        return _steps(op, sizes)
    own, values = (statistic,), ("in0", "in1", "in2", "out0")
    if "parts" in dict(op.attrs):
        return _parts(op, sizes, statistic)
    for ref in op.inputs[3:]:
        if graph.type(ref).dtype == "bool":  # as what is added to scores
            own = (*own, ("mask", sizes.numel(ref) * sizes.element(op.outs[0])))
        else:
            values = (*values, "in3")
    return Saved(values, own, results=1)


def _parts(op: Op, sizes: Sizes, statistic: tuple[str, int]) -> Saved:
    """Of a rank's part of queries. Of two chunks, keys and values stay in their order, and each chunk's result; a CPU
    has the mask, as what is added to scores."""
    queries, keys = sizes.dims(op.inputs[0])[2], sizes.dims(op.inputs[1])[2]
    chunks = len(op.inputs) - 3
    pairs = queries * keys if chunks == 1 else (queries // 2) * (keys + queries // 2)
    own = [statistic, *[("mask", pairs * sizes.element(op.outs[0]))] * (sizes.on == "cpu")]
    if chunks == 1:
        return Saved(("in0", "in1", "in2", "out0"), tuple(own), results=1)
    own += [("keys in order", sizes.bytes(op.inputs[1])), ("values in order", sizes.bytes(op.inputs[2]))]
    return Saved(("in0",), (*own, ("chunks", sizes.bytes(op.ref))), results=1)


def _layout(op: Op, sizes: Sizes) -> tuple[int, int, int]:
    """Rows, heads and queries on a rank."""
    names = [axis.name for axis in sizes.graph.type(op.inputs[0]).axes]
    dims = dict(zip(names, sizes.dims(op.inputs[0]), strict=True))
    heads = next(dims[name] for name in names if name.endswith("heads"))
    return dims["batch"], heads, prod(dims.values()) // dims["batch"] // heads // dims[names[-1]]


def _steps(op: Op, sizes: Sizes) -> Saved:
    """Scores, in float32, with and without their dropout; queries and keys scaled and laid out anew."""
    batch, heads, queries = _layout(op, sizes)
    keys = sizes.dims(op.inputs[1])[-2]
    q, k, v = (sizes.dims(ref)[-1] for ref in op.inputs[:3])
    scores, dropped = 4 * batch * heads * queries * keys, bool(op.attr("dropout"))
    half = sizes.element(op.outs[0]) == 2
    grouped = sizes.dims(op.inputs[1])[1] != heads
    own = [("scaled queries", 4 * batch * heads * queries * q), ("scaled keys", 4 * batch * heads * keys * k)]
    own += [("probabilities", scores)]
    own += [("mask", scores), ("dropped", scores)] if dropped else []
    copied = half or grouped or sizes.graph.op(op.inputs[2].op).kind == "part"
    own += [("values", 4 * batch * heads * keys * v)] if copied else []
    wide = [4 * sizes.numel(ref) for ref in op.inputs[:3]]
    masked = bool(op.attr("causal")) or any(sizes.graph.type(ref).dtype == "bool" for ref in op.inputs[3:])
    mask = queries * keys * sizes.element(op.outs[0]) * masked
    cast = half * (wide[0] + wide[1] + wide[2] * grouped) + grouped * 4 * batch * heads * keys * k
    forward = mask + cast if dropped else scores + mask + cast - sizes.bytes(op.ref)
    given = sum(sizes.bytes(ref) for ref in op.inputs if sizes.graph.type(ref).grad)
    moment = scores + 4 * batch * heads * keys * v - given
    backward = moment if dropped else max(scores, scores + moment) - 2 * sizes.bytes(op.ref)
    return Saved(() if copied else ("in2",), tuple(own), forward, backward, kernel=False)


def _plain(op: Op, sizes: Sizes) -> Saved:
    """Written out in the file: scores and probabilities in float32."""
    batch, heads, queries = _layout(op, sizes)
    keys = sizes.dims(op.inputs[1])[-2]
    scores = 4 * batch * heads * queries * keys
    return Saved(("in0", "in1", "in2"), (("probabilities", scores),), forward=2 * scores, backward=2 * scores)


def _part(op: Op, sizes: Sizes) -> Saved:
    """Gradients of the parts are joined."""
    return Saved(view=True)


def _join(op: Op, sizes: Sizes) -> Saved:
    """Gradients are parts of the result's."""
    return Saved(through=tuple(range(len(op.inputs))))


def _per_head(op: Op, sizes: Sizes) -> Saved:
    return Saved(("in0", "weights"), backward=sizes.bytes(op.ref))


def _temper(op: Op, sizes: Sizes) -> Saved:
    table = sizes.numel(op.inputs[1]) * sizes.element(op.outs[0])
    return Saved((), (("table", table),))


ROWS: Mapping[str, Row] = {
    "split": _view,
    "merge": _merge,
    "own_heads": _own_heads,
    "transpose": _view,
    "unsqueeze": _view,
    "rope": _rope,
    "attention": _attention,
    "plain_attention": _plain,
    "part": _part,
    "join": _join,
    "head_scale": _per_head,
    "temper": _temper,
}
