"""Recurrent mixers: what scans in chunks keep, most of it for each two positions of a chunk, in float32."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from specc.cost.saved import Row, Saved
from specc.cost.sizes import Sizes
from specc.ir.op import Op
from specc.ops.recurrent import CHUNK

FINE = 16  # positions of a chunk where each feature decays by itself


def _conv(op: Op, sizes: Sizes) -> Saved:
    """Its operand with what stands in front of the first position, samples first."""
    batch, seq, channels = _tokens(op, sizes)
    padded = batch * channels * (seq + op.params[0].axes[1].length - 1) * sizes.element(op.outs[0])
    return Saved(("weights",), (("padded", padded),), backward=2 * sizes.param(op, 0) * sizes.element(op.outs[0]))


def _document_conv(op: Op, sizes: Sizes) -> Saved:
    """A masked and a plain operand for each tap."""
    taps, size = op.params[0].axes[1].length, sizes.bytes(op.ref)
    return Saved(("in0",), (("taps", (taps - 1) * size),), forward=2 * size, backward=3 * size)


def _tokens(op: Op, sizes: Sizes) -> tuple[int, int, int]:
    """Rows, length and features of an operand of tokens, in either order."""
    names = [axis.name for axis in sizes.graph.type(op.inputs[0]).axes]
    first, second, features = sizes.dims(op.inputs[0])
    return (second, first, features) if names[1] == "batch" else (first, second, features)


@dataclass(frozen=True)
class _Chunks:
    """Elements of what a scan by heads is made of; `pairs` for each two positions of a chunk."""

    tokens: int  # rows x heads x length
    whole: int  # the same, filled up to whole chunks
    pairs: int
    masks: int  # of booleans, which rows have in common
    keys: int  # features of a head
    values: int
    states: int  # of all chunks
    share: float  # of heads, that groups are
    several: bool


def _chunks(op: Op, sizes: Sizes, q: int, v: int, chunk: int) -> _Chunks:
    batch, groups, seq, keys = sizes.dims(op.inputs[q])
    heads, values = sizes.dims(op.inputs[v])[1], sizes.dims(op.inputs[v])[-1]
    size = min(chunk, seq)
    count = -(-seq // size)
    pairs = batch * heads * count * size * size
    masks = count * size * size + 2 * count * size
    states = batch * heads * count * keys * values
    whole = batch * heads * count * size
    return _Chunks(batch * heads * seq, whole, pairs, masks, keys, values, states, groups / heads, count > 1)


def _half(op: Op, sizes: Sizes) -> bool:
    return sizes.element(op.outs[0]) == 2


def _state_space(op: Op, sizes: Sizes) -> Saved:
    """Steps; decay and weights of pairs, scores of each group; keys, values and queries with their decay; states."""
    c = _chunks(op, sizes, 2, 0, CHUNK)
    heads = op.params[0].axes[0].length
    shared, own = int(c.whole * c.keys * c.share), c.whole * c.keys
    several = 2 if c.several else 1  # in front of the first chunk is a state without a gradient
    scores, half = int(c.pairs * c.share), _half(op, sizes)
    elements = 3 * c.tokens + 2 * heads + 2 * c.pairs + scores + 2 * shared + several * own + c.whole * c.values
    elements += 2 * c.whole + 2 * c.states + half * (c.tokens * c.values + heads)
    backward = 4 * (2 * c.pairs + scores) - (29 if c.several else 16) * c.whole * (c.keys + c.values) // 5
    forward = 4 * (2 * c.whole * c.values + own)
    values = () if half else ("in0", "weights")
    return Saved(values, (("scan", 4 * elements + c.masks),), forward, backward, kernel=False)


def _linear_attention(op: Op, sizes: Sizes) -> Saved:
    """Rates do not learn: of their decay products alone are kept."""
    c = _chunks(op, sizes, 0, 2, CHUNK)
    elements = 2 * c.pairs + c.whole * ((4 if c.several else 3) * c.keys + c.values) + 2 * c.whole + c.states
    forward = 4 * (c.pairs // 2 + c.whole * (c.keys + c.values))
    backward = 4 * c.pairs - (c.whole * c.keys // 2 if c.several else 5 * c.whole * c.keys)
    return Saved((), (("scan", 4 * elements),), forward, backward, kernel=False)


def _delta_rule(op: Op, sizes: Sizes) -> Saved:
    """Beside a scan's the system of each chunk, and what solves it; a decay of pairs for each feature, or one."""
    features = sizes.dims(op.inputs[3])[-1] > sizes.dims(op.inputs[4])[-1]
    c = _chunks(op, sizes, 0, 2, FINE if features else CHUNK)
    batch, groups, seq, _ = sizes.dims(op.inputs[0])
    each = c.keys if features else 1
    half = _half(op, sizes)
    elements = 2 * c.tokens * each + 2 * sizes.dims(op.inputs[2])[1] + 2 * batch * groups * seq + c.tokens * c.keys
    if features:
        elements += c.pairs * (2 + 3 * each) + (8 if c.several else 7) * c.whole * c.keys
    else:
        elements += c.pairs * 5 + c.whole * (2 + (6 if c.several else 5) * c.keys)
    elements += 2 * c.whole * c.values + c.states
    elements += half * (c.tokens * (c.values + 1) + 2 * batch * groups * seq * c.keys)
    backward = 12 * each * c.pairs - 6 * c.pairs
    if not features:
        backward = 8 * c.pairs - 14 * c.whole * (c.keys + c.values) // 5
    values = () if half else ("in0", "in1", "in2", "in4")
    return Saved(values, (("scan", 4 * elements + c.masks),), c.pairs, backward, kernel=False)


def _selective_scan(op: Op, sizes: Sizes) -> Saved:
    """Decay and state of each channel's states; steps."""
    features, (_, state) = sizes.numel(op.ref), (axis.length for axis in op.params[0].axes)
    half, table = _half(op, sizes), sizes.param(op, 0)
    elements = 3 * features + 2 * table + 2 * features * state
    if half:
        elements += features + 2 * sizes.numel(op.inputs[2]) + sizes.dims(op.ref)[-1]
    each = 4 * features * state
    values = () if half else ("in0", "in2", "in3", "weights")
    return Saved(values, (("scan", 4 * elements),), 15 * each // 4, 149 * each // 20, kernel=False)


def _gated_recurrence(op: Op, sizes: Sizes) -> Saved:
    """Gates, the decay they give, what is taken up, and states."""
    features, channels, half = sizes.numel(op.ref), sizes.dims(op.ref)[-1], _half(op, sizes)
    own = 4 * (9 * features + channels + half * (2 * features + channels)) + features // channels
    values = () if half else ("in0", "out0", "weights")
    return Saved(values, (("scan", own),), 20 * features, 16 * features, kernel=False)


def _block_linear(op: Op, sizes: Sizes) -> Saved:
    return Saved(("in0", "weights"), forward=sizes.bytes(op.ref))


ROWS: Mapping[str, Row] = {
    "causal_conv": _conv,
    "document_conv": _document_conv,
    "state_space": _state_space,
    "linear_attention": _linear_attention,
    "delta_rule": _delta_rule,
    "selective_scan": _selective_scan,
    "gated_recurrence": _gated_recurrence,
    "block_linear": _block_linear,
}
