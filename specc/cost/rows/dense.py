"""Embeddings, linears, norms, and ops on each element."""

from __future__ import annotations

from collections.abc import Mapping

from specc.cost.saved import Row, Saved
from specc.cost.sizes import Sizes
from specc.ir.op import Op
from specc.ops.norm import KINDS as NORMS


def _rows(op: Op, sizes: Sizes) -> int:
    return sizes.numel(op.ref) // sizes.dims(op.ref)[-1]


def _embedding(op: Op, sizes: Sizes) -> Saved:
    if not op.lowering:
        return Saved(("in0",))
    ids = sizes.numel(op.inputs[0])  # rows of this rank's part, and which ids are in it
    return Saved((), (("rows", 8 * ids), ("mine", ids)), forward=sizes.bytes(op.ref), backward=sizes.bytes(op.ref))


def _linear(op: Op, sizes: Sizes) -> Saved:
    """A bias is not kept."""
    return Saved(("in0", "weight"))


def _norm(op: Op, sizes: Sizes) -> Saved:
    """Of the CPU's RMS norm all steps are there one by one, in float32."""
    if "sum_statistic" in dict(op.lowering).values():
        return _shared_norm(op, sizes)
    features, size, wide = sizes.dims(op.ref)[-1], sizes.bytes(op.ref), 4 * sizes.numel(op.ref)
    rows = sizes.numel(op.ref) // (op.number("width") if "width" in dict(op.attrs) else features)
    fused, half = op.kind in ("rms_norm", "layer_norm"), size < wide
    weights = ("weights",) if op.params and fused else ()
    factor: tuple[tuple[str, int], ...] = ()
    if op.params and not fused:
        factor = (("factor", features * sizes.element(op.outs[0])), ("normed", size))
    if op.kind.endswith("layer_norm"):
        each = 4 if sizes.on == "cuda" else sizes.element(op.outs[0])
        return Saved(("in0", *weights), (("mean and rstd", 2 * rows * each), *factor), backward=size * bool(factor))
    if sizes.on == "cuda":
        return Saved(("in0", *weights), (("rstd", 4 * rows), *factor), backward=size * bool(factor))
    own = (("rstd", 4 * rows), *factor)
    own += (("normed", wide),) if op.params and fused else ()
    own += (("in float32", wide),) if half else ()
    bias = len(op.params) > 1
    forward = wide if half and not factor else size * (half or bias) if factor else 4 * rows * (not op.params)
    factored = sum(each for name, each in own if name in ("rstd", "factor"))
    backward = (2 if op.params and fused else 3) * wide + size * half - factored
    return Saved(weights if half else ("in0", *weights), own, forward, backward)


def _shared_norm(op: Op, sizes: Sizes) -> Saved:
    """Written out in float32: x, its factor of each row, and their product."""
    wide, size, rows = 4 * sizes.numel(op.ref), sizes.bytes(op.ref), _rows(op, sizes)
    own: tuple[tuple[str, int], ...] = (("rstd", 4 * rows), ("normed", size))
    if size < wide:
        own += (("in float32", wide),)
    return Saved(("weights",) if size < wide else ("in0", "weights"), own, forward=wide, backward=3 * wide)


def _activation(op: Op, sizes: Sizes) -> Saved:
    size = sizes.bytes(op.ref)
    match op.text("function"):
        case "relu" | "tanh" | "sigmoid":
            return Saved(("out0",))
        case "relu2":
            return Saved((), (("rectified", size),), backward=2 * size)
        case "quick_gelu":
            return Saved(("in0",), (("gate", size),), forward=size, backward=2 * size)
        case _:
            return Saved(("in0",))


def _dropout(op: Op, sizes: Sizes) -> Saved:
    mask = sizes.numel(op.ref) if sizes.on == "cuda" else sizes.bytes(op.ref)
    return Saved((), (("mask", mask),))


def _drop_path(op: Op, sizes: Sizes) -> Saved:
    return Saved((), (("mask", sizes.element(op.outs[0]) * sizes.dims(op.ref)[0]),))


def _jitter(op: Op, sizes: Sizes) -> Saved:
    return Saved((), (("noise", sizes.bytes(op.ref)),))


def _mul(op: Op, sizes: Sizes) -> Saved:
    """A factor is kept where the other one has a gradient."""
    grads = [sizes.graph.type(ref).grad for ref in op.inputs]
    broadcast = any(sizes.numel(ref) < sizes.numel(op.ref) for ref in op.inputs)
    return Saved(tuple(f"in{n}" for n in (0, 1) if grads[1 - n]), backward=broadcast * sizes.bytes(op.ref))


def _add(op: Op, sizes: Sizes) -> Saved:
    """What is broadcast gets a sum of the gradient."""
    return Saved(through=tuple(n for n, ref in enumerate(op.inputs) if sizes.numel(ref) == sizes.numel(op.ref)))


def _softcap(op: Op, sizes: Sizes) -> Saved:
    return Saved((), (("tanh", sizes.bytes(op.ref)),))


def _channel_scale(op: Op, sizes: Sizes) -> Saved:
    return Saved(("in0", "weights"), backward=sizes.bytes(op.ref))


def _xielu(op: Op, sizes: Sizes) -> Saved:
    size = sizes.bytes(op.ref)
    return Saved(("in0",), (("parts", 6 * size),), forward=2 * size, backward=4 * size)


ROWS: Mapping[str, Row] = {
    "embedding": _embedding,
    "linear": _linear,
    "router": _linear,
    "add_bias": lambda op, sizes: Saved(through=(0,)),
    "add": _add,
    "sub": lambda op, sizes: Saved(),
    "scale": lambda op, sizes: Saved(),
    "shift": lambda op, sizes: Saved(through=(0,)),
    "mul": _mul,
    "clamp": lambda op, sizes: Saved(("in0",), backward=sizes.numel(op.ref)),
    "channel_scale": _channel_scale,
    "activation": _activation,
    "xielu": _xielu,
    "softcap": _softcap,
    "logit_cap": _softcap,
    "dropout": _dropout,
    "drop_path": _drop_path,
    "jitter": _jitter,
    **dict.fromkeys(NORMS, _norm),
}
