"""Routing, and experts."""

from __future__ import annotations

from collections.abc import Mapping

from specc.cost.saved import Row, Saved
from specc.cost.sizes import Sizes
from specc.ir.op import Op, Ref


def _scores(op: Op, sizes: Sizes) -> Saved:
    cast = sizes.bytes(op.ref) * (sizes.bytes(op.inputs[0]) < sizes.bytes(op.ref))
    return Saved(("out0",), forward=cast, backward=cast)


def _normalise(op: Op, sizes: Sizes) -> Saved:
    size, rows = sizes.bytes(op.ref), sizes.bytes(op.ref) // sizes.dims(op.ref)[-1]
    return Saved(("in0",), (("sums", rows),), backward=3 * size)


def _route(op: Op, sizes: Sizes) -> Saved:
    """Of scores only the shape is read. Where they are chosen by others, these are found, too."""
    others = len(op.inputs) > 1
    return Saved(("in0", "out1"), backward=sizes.bytes(op.inputs[0]), between=others * sizes.bytes(op.ref))


def _limit(op: Op, sizes: Sizes) -> Saved:
    """The best of each group and where they are, their sums, the best of these and where they are, and masks."""
    groups, keep, best = (op.number(name) for name in ("groups", "keep", "best"))
    rows, size = sizes.numel(op.ref) // sizes.dims(op.ref)[-1], sizes.element(op.outs[0])
    between = rows * (groups * best * (size + 8) + groups * size + keep * (size + 8) + 3 * groups)
    return Saved(forward=between // 3, between=between)


def _usage(op: Op, sizes: Sizes) -> Saved:
    return Saved(forward=8 * sizes.numel(op.inputs[0]) * op.number("experts"))


def _squares(op: Op, sizes: Sizes) -> Saved:
    """In float32."""
    logits, half = 4 * sizes.numel(op.inputs[0]), sizes.bytes(op.inputs[0]) < 4 * sizes.numel(op.inputs[0])
    rows = logits // sizes.dims(op.inputs[0])[-1]
    own = (("logarithms", rows), *((("logits", logits),) if half else ()))
    return Saved(() if half else ("in0",), own, forward=rows, backward=2 * logits + rows)


def _balance(op: Op, sizes: Sizes) -> Saved:
    return Saved(("in0",), (("sums", 8 * sizes.dims(op.inputs[0])[0]),))


def _dispatch(op: Op, sizes: Sizes) -> Saved:
    """Which token each row is of; where rows are weighted, these before and their weights."""
    rows, slots = sizes.bytes(op.ref), sizes.numel(Ref(op.id, 1))
    own = (("tokens", 8 * slots),)
    if len(op.inputs) == 2:
        return Saved((), own, backward=sizes.bytes(op.inputs[0]))
    gates = slots * sizes.element(op.outs[0])
    return Saved(("out2",), (*own, ("gates", gates), ("rows", rows)), backward=rows + 2 * sizes.bytes(op.inputs[0]))


def _grouped(op: Op, sizes: Sizes) -> Saved:
    bias = len(op.params) > 1
    ends = 4 * op.params[0].axes[0].length
    size = sizes.bytes(op.ref)
    return Saved(("in0", *("in1",) * bias, "weight"), (("ends", ends),), forward=2 * size * bias)


def _combine(op: Op, sizes: Sizes) -> Saved:
    rows = sizes.bytes(op.inputs[0])
    gates, own = _gates(op, sizes)
    return Saved(("in0", *gates, "in2"), (("rows in order", rows), *own), forward=rows, backward=rows)


def _gates(op: Op, sizes: Sizes) -> tuple[tuple[str, ...], tuple[tuple[str, int], ...]]:
    """Gates as they are, or in the type of the rows that they weigh."""
    size = sizes.numel(op.inputs[1]) * sizes.element(op.outs[0])
    return (("in1",), ()) if size == sizes.bytes(op.inputs[1]) else ((), (("gates", size),))


def _combine_some(op: Op, sizes: Sizes) -> Saved:
    rows, slots = sizes.bytes(op.inputs[0]), sizes.numel(op.inputs[2])
    gates = slots * sizes.element(op.outs[0])
    own = (("gates", gates), ("weighted", rows))
    return Saved(("in0", "in2"), own, forward=3 * rows // 2, backward=rows - sizes.bytes(op.ref))


def _collect(op: Op, sizes: Sizes) -> Saved:
    rows = sizes.bytes(op.inputs[0])
    return Saved(("in0", "in2"), forward=rows + 2 * sizes.bytes(op.ref), backward=rows - sizes.bytes(op.ref))


def _returned(op: Op, sizes: Sizes) -> Saved:
    choices = sizes.numel(op.inputs[1])
    gate = sizes.numel(op.ref) // sizes.dims(op.ref)[-1] * sizes.element(op.outs[0])
    return Saved(("in0",), (("chosen", choices), ("gate", gate)), backward=sizes.bytes(op.ref))


def _bias(op: Op, sizes: Sizes) -> Saved:
    """A bias for each choice of a token, and their weighted sum."""
    each = sizes.bytes(op.ref) * sizes.dims(op.inputs[1])[-1]
    moment = 2 * each - sizes.bytes(op.ref)
    gates, own = _gates(op, sizes)
    return Saved((*gates, "in2"), (("of each choice", each), *own), forward=each, backward=moment, through=(0,))


def _some_bias(op: Op, sizes: Sizes) -> Saved:
    each = sizes.bytes(op.ref) * sizes.dims(op.inputs[1])[-1]
    choices = sizes.numel(op.inputs[1])
    own = (("ids", 8 * choices), ("chosen", choices * sizes.element(op.outs[0])))
    if len(op.inputs) > 2:
        own = (*own, ("mine", choices), ("of each choice", each))
        return Saved((), own, forward=each, backward=2 * each - sizes.bytes(op.ref), through=(0,))
    moment = each - sizes.bytes(op.ref)
    return Saved((), own, forward=2 * each + choices, backward=moment, through=(0,))


def _expert_scale(op: Op, sizes: Sizes) -> Saved:
    return Saved(("in0", "in1"), (("scales", sizes.bytes(op.ref)),), backward=sizes.bytes(op.ref))


def _kept(op: Op, sizes: Sizes) -> Saved:
    return Saved()


ROWS: Mapping[str, Row] = {
    "scores": _scores,
    "normalise": _normalise,
    "route": _route,
    "correct": _kept,
    "limit": _limit,
    "expert_scale": _expert_scale,
    "usage": _usage,
    "total": lambda op, sizes: Saved(through=(0,)),  # an expanded one
    "balance": _balance,
    "squares": _squares,
    "dispatch": _dispatch,
    "grouped_linear": _grouped,
    "grouped_last": _grouped,
    "combine": _combine,
    "combine_some": _combine_some,
    "collect": _collect,
    "returned": _returned,
    "expert_bias": _bias,
    "some_bias": _some_bias,
}
