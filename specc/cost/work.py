"""What every op makes a device do on one rank: products of matrices, bytes, kernels, forward and backward.

An op of an extension says it itself, in its OpDef, or has what follows from its flops and its operands. Where several
kernels compute one op, those of eager torch on CUDA are counted.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

from specc.cost.sizes import BYTES, Sizes
from specc.ir.graph import Graph
from specc.ir.op import Op, Param, Ref
from specc.ir.types import Axis, TensorType
from specc.ops import pointwise
from specc.ops.norm import KINDS as NORMS
from specc.ops.recurrent import CHUNK, tokens
from specc.ops.work import Local, Matmul, Passes, Work, Worker

VIEWS = (
    *("split", "merge", "part", "unsqueeze", "transpose"),
    *("input", "zero", "repeat", "end", "cut", "convert"),
)
"""Kinds that run no kernel: other shapes of what is there. Collectives are counted by themselves."""
CHAINED = (*(op.kind for op in pointwise.OPS), "add_bias", "channel_scale", "head_scale", "rope", "temper")
"""Kinds of ops on each element by itself, which a compiler joins to one kernel."""


def work(graph: Graph, op: Op, sizes: Sizes, written_out: bool = False) -> Passes:
    """Of an op of a placed graph on the rank that has most. `written_out`: scores of attention are kept in memory."""
    if op.kind in VIEWS:
        return Passes(Work())
    found = local(graph, op, sizes)
    own = graph.definition(op).work
    if own is not None:
        return own(found)
    if written_out and op.kind == "attention":
        return _scores(found)
    return RULES.get(op.kind, by_operands)(found)


def local(graph: Graph, op: Op, sizes: Sizes) -> Local:
    """The op with the sizes of one rank."""
    params = tuple(
        Param(param.path, _used(op, n, sizes), param.init, param.role, param.trained)
        for n, param in enumerate(op.params)
    )
    outs = tuple(_local(graph, Ref(op.id, n), sizes) for n in range(len(op.outs)))
    ins = tuple(_local(graph, ref, sizes) for ref in op.inputs)
    seen, facts = op.changed(params=params, outs=outs), graph.facts(op)
    alone = sum(type.grad for type in ins) + any(param.trained for param in params) == 1
    reads = not facts.additive and not (alone and facts.linear)
    element: Mapping[str, int] = {**BYTES, "float": sizes.element(TensorType(()))}
    return Local(seen, ins, outs, element, graph.definition(op).flops(seen, ins, {}), reads)


def _used(op: Op, n: int, sizes: Sizes) -> tuple[Axis, ...]:
    """Axes of a parameter as it is used, see `Sizes.param`."""
    axes = list(op.params[n].axes)
    names = [axis.shard_name for axis in axes]
    for mesh, ranks in sizes.ranks.items() if op.uses else ():
        place = op.uses[n].used.at(mesh)
        if place.kind == "S":
            dim = names.index(place.axis)
            (axes[dim],) = _resized((axes[dim],), (-(-axes[dim].length // ranks),))
    return tuple(axes)


def _local(graph: Graph, ref: Ref, sizes: Sizes) -> TensorType:
    type, spmd = graph.type(ref), sizes.spmd(ref)
    axes: list[Axis] = []
    for held, rows in zip(type.dims, sizes.dims(ref), strict=True):
        axes += _resized(held, (*(sizes.axis(axis, spmd) for axis in held[:-1]), rows))
    return TensorType(tuple(axes), type.dtype, type.grad)


def _resized(axes: tuple[Axis, ...], lengths: tuple[int, ...]) -> tuple[Axis, ...]:
    """A compound axis is split by its first factor."""
    found: list[Axis] = []
    for axis, length in zip(axes, lengths, strict=True):
        factors = axis.factors
        if "*" in axis.name:
            rest = prod(size for _, size in factors[1:])
            factors = ((factors[0][0], length // rest), *factors[1:])
        found.append(Axis(axis.name, length, axis.ragged, factors))
    return tuple(found)


def by_operands(x: Local) -> Passes:
    """Operands are read once and results written once; backward reads gradients, what it needs of the former, and
    writes gradients. Each operand's gradient is as many flops as the op, all together at most twice as many.
    """
    moved = x.bytes(*x.ins, *x.outs) + x.weights
    forward = Work(flops=x.flops, bytes=moved, kernels=1)
    given = x.graded
    if not any(type.grad for type in x.outs) or not (given or x.trained):
        return Passes(forward)
    if x.op.kind == "add":
        return Passes(forward)  # the gradient is handed on
    weights = x.weights if x.trained else 0
    read = x.bytes(*(type for type in x.outs if type.grad)) + (x.bytes(*given) + weights if x.reads else 0)
    times = min(2, len(given) + x.trained)
    return Passes(forward, Work(flops=times * x.flops, bytes=read + x.bytes(*given) + weights, kernels=1))


def _linear(x: Local) -> Passes:
    """y = x W^T + b; the bias is added by the product's kernel."""
    out, inner = (axis.length for axis in x.op.params[0].axes)
    rows = x.outs[0].numel({}) // out
    back = [Matmul(rows, inner, out, "nn")] * x.ins[0].grad + [Matmul(out, inner, rows, "tn")] * x.trained
    bias = any(param.trained for param in x.op.params[1:])
    summed = Work(tuple(back), bytes=x.bytes(x.outs[0]) * bias, kernels=int(bias))
    return Passes(Work((Matmul(rows, out, inner),)), summed)


def _grouped(x: Local) -> Passes:
    """A linear of each expert, of equal shares of the rows."""
    experts, out, inner = (axis.length for axis in x.op.params[0].axes)
    rows = max(1, round(x.outs[0].numel({}) / out / experts))
    back = (Matmul(rows, inner, out, "nn", experts), Matmul(out, inner, rows, "tn", experts))
    return Passes(Work((Matmul(rows, out, inner, count=experts),)), Work(back))


def _blocks(x: Local) -> Passes:
    """A linear of the features of each head."""
    heads, out, inner = (axis.length for axis in x.op.params[0].axes[:3])
    rows = x.outs[0].numel({}) // (heads * out)
    back = (Matmul(rows, inner, out, "nn", heads), Matmul(out, inner, rows, "tn", heads))
    return Passes(Work((Matmul(rows, out, inner, count=heads),)), Work(back))


def _attention(x: Local) -> Passes:
    """One kernel; backward makes the scores again: five products in place of two (2205.14135, algorithm 4)."""
    q, k, v = x.ins[:3]
    keys, dim, value = k.axes[2].length, q.axes[-1].length, v.axes[-1].length
    share, done, chunks = _pairs(x, q.axes[2].length, keys)
    pairs = q.numel({}) // dim * keys
    moved = x.bytes(*x.ins, *x.outs)
    copied = 2 * x.bytes(k, v, x.outs[0]) if chunks > 1 else 0  # keys and values in order, chunks joined
    again = 2 * pairs * (3 * dim + 2 * value)
    kernels = chunks + 3 * (chunks > 1)
    forward = Work(flops=round(share * x.flops), bytes=moved + copied, kernels=kernels, done=done)
    backward = Work(flops=round(share * again), bytes=2 * moved + copied, kernels=kernels, done=done)
    return Passes(forward, backward, "fused")


def _pairs(x: Local, queries: int, keys: int) -> tuple[float, float, int]:
    """The share of all pairs of queries and keys that kernels are given, what share of these is computed, and in how
    many chunks. Of parts of rows in their order the last rank has most; of zigzag all have as many.
    """
    attrs = dict(x.op.attrs)
    if attrs.get("causal"):
        return 1.0, 0.5 + 0.5 / keys, 1
    if "parts" not in attrs:
        return 1.0, 1.0, 1
    ranks = keys // queries
    if len(x.ins) == 4:
        return 1.0, 1 - (queries - 1) / (2 * keys), 1
    given = (2 * ranks + 1) / (4 * ranks)
    return given, (0.5 + 0.5 / keys) / given, 2


def _scores(x: Local, passes: int = 0) -> Passes:
    """Scores in memory, over which the softmax goes once, dropout once more, and others `passes` times."""
    (batch, heads, queries, dim), keys, value = (
        (axis.length for axis in x.ins[0].axes),
        x.ins[1].axes[2].length,
        x.ins[2].axes[-1].length,
    )
    count = batch * heads
    scores = count * queries * keys
    once = 2 * x.element[x.ins[0].dtype] * scores  # read and written
    dropped = once + scores if dict(x.op.attrs).get("dropout") else 0
    forward = (Matmul(queries, keys, dim, "nt", count), Matmul(queries, value, keys, "nn", count))
    backward = (
        Matmul(queries, keys, value, "nt", count),
        Matmul(keys, value, queries, "tn", count),
        Matmul(queries, dim, keys, "nn", count),
        Matmul(keys, dim, queries, "tn", count),
    )
    kernels = 1 + passes + bool(dropped)
    return Passes(
        Work(forward, bytes=(1 + passes) * once + dropped, kernels=kernels),
        Work(backward, bytes=3 * once // 2 + passes * once + dropped, kernels=kernels),
    )


def _plain_attention(x: Local) -> Passes:
    """Scaled, masked, and where asked for capped, one kernel each."""
    return _scores(x, 2 + 3 * (dict(x.op.attrs).get("softcap") is not None))


def _norm(x: Local) -> Passes:
    once = x.bytes(x.ins[0])
    return Passes(Work(flops=x.flops, bytes=2 * once, kernels=1), Work((), 2 * x.flops, 4 * once, 1 + x.trained))


def _dropout(x: Local) -> Passes:
    """With a mask of a byte."""
    both = Work(bytes=x.bytes(*x.ins, *x.outs) + x.outs[0].numel({}), kernels=1)
    return Passes(both, both)


def _rope(x: Local) -> Passes:
    """Two products, a half turned around, a join and a sum."""
    once = x.bytes(x.ins[0])
    return Passes(Work(flops=x.flops, bytes=8 * once, kernels=5), Work((), 2 * x.flops, 9 * once, 5))


def _embedding(x: Local) -> Passes:
    """Rows are read and written; those of other ranks are zeroed. The gradient is as large as the table."""
    rows = 2 * x.bytes(x.outs[0])
    split = bool(x.op.lowering)
    return Passes(Work(bytes=rows * (1 + split), kernels=1 + 3 * split), Work(bytes=rows + x.weights, kernels=2))


def _cross_entropy(x: Local) -> Passes:
    """In float32 whatever the logits are: a cast, the maximum, a difference, exponentials and their sum."""
    logits = x.ins[0].numel({})
    given = x.element[x.ins[0].dtype]
    return Passes(
        Work(flops=x.flops, bytes=logits * (given + 4 * 4), kernels=5),
        Work(flops=x.flops, bytes=logits * (given + 5 * 4), kernels=4),
    )


def _scan(x: Local) -> Passes:
    """Written out in torch over chunks, with a few kernels for each: judged from `specc.kernels`, not measured."""
    once = x.bytes(*x.ins, *x.outs)
    length = next(axis.length for axis in x.ins[0].axes if axis.name == tokens(x.ins[0]))
    kernels = 30 + 4 * -(-length // CHUNK)
    forward = Work(flops=x.flops, bytes=8 * once, kernels=kernels)
    return Passes(forward, Work((), 2 * x.flops, 16 * once, 2 * kernels), "fused")


def _sorted(x: Local) -> Passes:
    """Choices are sorted, counted and turned around."""
    found = by_operands(x)
    return Passes(Work((), found.forward.flops, found.forward.bytes, 6), found.backward)


RULES: Mapping[str, Worker] = {
    **dict.fromkeys(("linear", "router"), _linear),
    **dict.fromkeys(("grouped_linear", "grouped_last"), _grouped),
    **dict.fromkeys(NORMS, _norm),
    **dict.fromkeys(("dropout", "drop_path", "jitter"), _dropout),
    **dict.fromkeys(("state_space", "delta_rule", "linear_attention", "selective_scan", "gated_recurrence"), _scan),
    "block_linear": _blocks,
    "attention": _attention,
    "plain_attention": _plain_attention,
    "rope": _rope,
    "embedding": _embedding,
    "cross_entropy": _cross_entropy,
    "dispatch": _sorted,
}
"""By kind, where flops and operands do not tell it all."""
