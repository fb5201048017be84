"""Where values come from and go to: sources, masks, the loss, conversions between ranks."""

from __future__ import annotations

from collections.abc import Mapping

from specc.cost.saved import Row, Saved
from specc.cost.sizes import Sizes
from specc.ir.op import Op
from specc.ops.conversions import conversion


def _cross_entropy(op: Op, sizes: Sizes) -> Saved:
    """In float32: logarithms of probabilities, or of a vocab that is split exponentials; they become the gradient."""
    wide, given = 4 * sizes.numel(op.inputs[0]), sizes.bytes(op.inputs[0])
    cast = wide if given < wide else 0
    rows = sizes.numel(op.inputs[1])
    if op.lowering:
        return Saved((), (("exponentials", wide), ("of each token", 18 * rows)), own_gradient=True)
    return Saved(("in1",), (("log probabilities", wide),), cast * (sizes.on == "cpu"), own_gradient=True)


def _convert(op: Op, sizes: Sizes) -> Saved:
    """A collective makes a new value; where it cuts or joins another dim than the first, the whole is copied, too."""
    source, target = op.place("src"), op.place("dst")
    link = conversion(source, target)
    whole = max(sizes.bytes(op.inputs[0]), sizes.bytes(op.ref))
    split = source if source.kind == "S" else target
    dim = op.outs[0].dim(split.axis) if split.kind == "S" else 0
    copied = whole if dim else 0
    through = () if link is None or link.backward or dim else (0,)
    view = link is None or not link.forward
    through = (0,) if link is None else through
    return Saved(forward=0 if view else copied, backward=copied, view=view, through=through)


def _pool(op: Op, sizes: Sizes) -> Saved:
    if op.text("how") != "mean":
        return Saved(view=len(op.inputs) == 1)  # one token, whose gradient is one of all
    counts, size = 8 * sizes.dims(op.ref)[0], sizes.bytes(op.ref)
    return Saved(("in1",), (("counts", counts),), forward=sizes.bytes(op.inputs[0]), backward=size)


def _own_tokens(op: Op, sizes: Sizes) -> Saved:
    return Saved(backward=sizes.bytes(op.ref) // 2)


def _biased(op: Op, sizes: Sizes) -> Saved:
    grad = sizes.graph.type(op.inputs[0]).grad
    return Saved(("in1",) if grad else ())


def _mask(op: Op, sizes: Sizes) -> Saved:
    """Distances of all pairs as whole numbers where a window asks for them; else what is joined."""
    of = sizes.graph.type(op.inputs[0])
    if len(op.inputs) == 1 and of.dtype == "bool":
        return Saved(view=True)
    dims = sizes.dims(op.ref)
    pairs, whole = dims[-1] * dims[-2], sizes.numel(op.ref)
    if "window" in dict(op.attrs):
        return Saved(forward=15 * pairs)
    return Saved(forward=0 if len(op.inputs) < 3 else whole * (len(op.inputs) - 3) + pairs)


def _nothing(op: Op, sizes: Sizes) -> Saved:
    return Saved()


SOURCES = (
    "positions",
    "rope_table",
    "sinusoid",
    "temperature",
    "real",
    "real_positions",
    "token_is",
    "document_starts",
    "slopes",
    "zero",
    "input",
    "head_rates",
    "patches",
    "labels_ahead",
    "tokens_ahead",
)

ROWS: Mapping[str, Row] = {
    "cross_entropy": _cross_entropy,
    "squared_error": lambda op, sizes: Saved(("in0", "in1"), backward=2 * sizes.bytes(op.inputs[0])),
    "convert": _convert,
    "pool": _pool,
    "own_tokens": _own_tokens,
    "time_conv": lambda op, sizes: Saved(("in0", "weights")),
    "time_last": lambda op, sizes: Saved(through=(0,)),
    "relative_bias": lambda op, sizes: Saved(("in0",)),
    "biased": _biased,
    "mask": _mask,
    "causal_bias": lambda op, sizes: Saved(),
    "mask_bias": lambda op, sizes: Saved(forward=4 * sizes.numel(op.ref)),
    "alibi": lambda op, sizes: Saved(forward=8 * sizes.numel(op.ref) // sizes.dims(op.ref)[0]),
    "buckets": lambda op, sizes: Saved(forward=21 * sizes.numel(op.ref)),
    **dict.fromkeys(SOURCES, _nothing),
}
