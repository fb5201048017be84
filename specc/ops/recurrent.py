"""What goes along a sequence in order: a short convolution over positions, and states that decay."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, Place, R, S, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Traffic, Types, as_first, shardable
from specc.ops.places import demand, use_of, whole_or_tokens

CHUNK = 64  # positions that a scan computes at once
Writer = Callable[[Op, Types, MeshAxis, Stream], list[Signature]]


def tokens(type: TensorType) -> str:
    """The axis of tokens, of [batch, seq, channels], [seq, batch, channels] or [batch, heads, seq, head_dim]."""
    *before, _ = (axis.name for axis in type.axes)
    return next(name for name in reversed(before) if name != "batch")


def along(op: Op, ins: Types, mesh: MeshAxis, lowering: str) -> list[Signature]:
    """By samples; by tokens on ranks that are fed different ones, which then exchange what they must; whole.

    Without a lowering tokens are whole.
    """
    seq, data, params = tokens(ins[0]), mesh.data, len(op.params)
    split = [("batch", "plain")] * ("batch" in mesh.tokens)
    split += [(seq, lowering)] * (data and seq in mesh.tokens and bool(lowering))
    found = [Signature(tuple(demand(t, S(a)) for t in ins), (S(a),), (R,) * params, how) for a, how in split]
    whole = (R,) if data else (R, I)
    return [*found, *(Signature(tuple(demand(t, p) for t in ins), (p,), (use_of(p),) * params) for p in whole)]


def _conv_signatures(lowering: str) -> Writer:
    """Positions are needed in order, channels by themselves."""

    def signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
        channels = ins[0].axes[-1]
        own = S(channels.shard_name)
        inputs = (own, *(R for _ in ins[1:]))
        if shardable(channels, mesh):
            return [Signature(inputs, (own,), (own,) * len(op.params))]
        return along(op, ins, mesh, lowering)

    return signatures


def _conv_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 2 * ins[0].numel(symbols) * op.params[0].axes[1].length


CONV = OpDef(
    "causal_conv",
    as_first,
    _conv_signatures("halo"),
    lambda op, ins: Facts(mix=(tokens(ins[0]),), lowered={tokens(ins[0]): "halo"}),
    flops=_conv_flops,
    saves=lambda op: ("in0",),
    any_order=True,
    traffic=lambda op, how: Traffic({"all-to-all": 1}, {"all-to-all": 1}) if how == "halo" else Traffic(),
    later="later_conv",
)
DOCUMENT_CONV = OpDef(  # of a second operand: where the document of each position starts [batch, seq]
    "document_conv",
    as_first,
    _conv_signatures(""),
    lambda op, ins: Facts(mix=(tokens(ins[0]),)),
    flops=_conv_flops,
    saves=lambda op: ("in0",),
    any_order=True,
)
LATER_CONV = OpDef(  # of the tokens behind those of which the cache has the last
    "later_conv",
    as_first,
    _conv_signatures(""),
    lambda op, ins: Facts(mix=(tokens(ins[0]),)),
    flops=_conv_flops,
    any_order=True,
    keeps=True,
)


def _groups(ins: Types) -> Axis:
    """The axis of what heads share, of an operand [batch, groups, ...] beside some by heads; or that of heads."""
    found = (t.axes[1] for t in ins if len(t.axes) == 4 and t.axes[1].name != "heads")
    return next(found, _heads(ins))


def _shares(ins: Types) -> tuple[Axis, Axis] | None:
    """One group serves all heads as it is."""
    heads, groups = _heads(ins), _groups(ins)
    return None if groups.name == "heads" or groups.length == 1 else (heads, groups)


def _by_heads(t: TensorType, heads: Place, groups: Axis, theirs: Place) -> Place:
    names = [axis.shard_name for axis in t.axes]
    return heads if "heads" in names else theirs if groups.name in names else R


def _scan_signatures(lowering: str, count: int = 0) -> Writer:
    """Heads by themselves, each with its group, of which one may serve all. `lowering`: of so many operands."""

    def signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
        groups = _groups(ins)
        one = groups.length == 1 and groups.name != "heads"
        if shardable(_heads(ins), mesh) and (one or shardable(groups, mesh)):
            own, theirs = S("heads"), R if one else S(groups.name)
            inputs = tuple(_by_heads(t, own, groups, theirs) for t in ins)
            return [Signature(inputs, (own,), (own,) * len(op.params))]  # what is read of the states is split, too
        return along(op, ins, mesh, lowering if len(ins) == count else "")

    return signatures


def _heads(ins: Types) -> Axis:
    return next(t.axes[1] for t in ins if len(t.axes) == 4 and t.axes[1].name == "heads")


def _scan_facts(state: str, lowering: str = "", count: int = 0) -> Callable[[Op, Types], Facts]:
    """`state`: the axis of states that is summed over."""

    def facts(op: Op, ins: Types) -> Facts:
        groups, seq = _groups(ins), tokens(ins[0])
        shared = [n for n, t in enumerate(ins) if groups.name in [axis.name for axis in t.axes]]
        tied = groups.length > 1 or groups.name == "heads"
        rename = {n: {groups.name: "heads"} for n in shared} if tied else {}
        mixed = (seq, state, *(() if tied else (groups.name,)))
        return Facts(rename=rename, mix=mixed, lowered={seq: lowering} if lowering and len(ins) == count else {})

    return facts


def _scan_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    """Of the states, and of the scores within chunks."""
    numel, state = ins[0].numel(symbols), ins[2].axes[-1].length
    return 2 * numel * (2 * state + CHUNK)


STATE_SPACE = OpDef(  # of x, dt, b, c, and where documents start, if there are several
    "state_space",
    as_first,
    _scan_signatures("pass_state", 4),
    _scan_facts("state", "pass_state", 4),
    flops=_scan_flops,
    saves=lambda op: ("in0", "in1", "in2", "in3"),
    any_order=True,
    traffic=lambda op, how: Traffic({"all-gather": 1}, {"reduce-scatter": 1}) if how == "pass_state" else Traffic(),
    later="later_state_space",
    wide=True,
    shares=_shares,
)
LATER_STATE_SPACE = OpDef(
    "later_state_space",
    as_first,
    _scan_signatures(""),
    _scan_facts("state"),
    any_order=True,
    keeps=True,
    wide=True,
    shares=_shares,
)


def _as_values(op: Op, ins: Types) -> Types:
    return (ins[2],)


def _delta_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    """Of states, of scores within chunks, and of the system of each."""
    numel, rows = ins[2].numel(symbols), ins[0].axes[-1].length
    return 2 * numel * (3 * rows + 2 * CHUNK) + 2 * CHUNK * ins[0].numel(symbols)


DELTA_RULE = OpDef(  # of q, k, v, a, beta, and where documents start, if there are several
    "delta_rule",
    _as_values,
    _scan_signatures(""),
    _scan_facts("head_dim"),
    flops=_delta_flops,
    saves=lambda op: ("in0", "in1", "in2", "in3", "in4"),
    any_order=True,
    later="later_delta_rule",
    wide=True,
    shares=_shares,
)
LATER_DELTA_RULE = OpDef(
    "later_delta_rule",
    _as_values,
    _scan_signatures(""),
    _scan_facts("head_dim"),
    any_order=True,
    keeps=True,
    wide=True,
    shares=_shares,
)


HEAD_RATES = OpDef(  # how fast states of each head decay; of the operand only the dtype is read
    "head_rates",
    lambda op, ins: (TensorType((Axis("heads", op.number("heads")),), ins[0].dtype, grad=False),),
    lambda op, ins, mesh, stream: [Signature((None,), (R,))],
    lambda op, ins: Facts(shape_only=(0,), source=True),
)
LINEAR_ATTENTION = OpDef(  # of q, k, v, rates of heads, and where documents start, if there are several
    "linear_attention",
    _as_values,
    _scan_signatures(""),
    _scan_facts("head_dim"),
    flops=lambda op, ins, symbols: 2 * ins[2].numel(symbols) * (2 * ins[0].axes[-1].length + CHUNK),
    saves=lambda op: ("in0", "in1", "in2"),
    any_order=True,
    later="later_linear_attention",
)
LATER_LINEAR_ATTENTION = OpDef(
    "later_linear_attention", _as_values, _scan_signatures(""), _scan_facts("head_dim"), any_order=True, keeps=True
)


def _feature_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Channels by themselves, with what all of them share."""
    channels = ins[0].axes[-1]
    if not shardable(channels, mesh):
        return along(op, ins, mesh, "")
    own = S(channels.shard_name)
    inputs = tuple(own if t.axes[-1] == channels else R for t in ins)
    return [Signature(inputs, (own,), (own,) * len(op.params))]


def _feature_facts(op: Op, ins: Types) -> Facts:
    return Facts(mix=(tokens(ins[0]), "state"))


def _feature_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    """Of a state for each channel, or of the channel alone."""
    rows = op.params[0].axes[1].length if len(op.params[0].axes) > 1 else 1
    return 8 * ins[0].numel(symbols) * rows


def _feature_scan(kind: str, count: int) -> tuple[OpDef, OpDef]:
    """A recurrence of each channel, of so many operands, and of the tokens that follow."""
    once = OpDef(
        kind,
        as_first,
        _feature_signatures,
        _feature_facts,
        flops=_feature_flops,
        saves=lambda op: tuple(f"in{n}" for n in range(count)),
        any_order=True,
        later=f"later_{kind}",
        wide=True,
    )
    rules = (as_first, _feature_signatures, _feature_facts)
    return once, OpDef(f"later_{kind}", *rules, any_order=True, keeps=True, wide=True)


def _block_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Heads by themselves."""
    name = ins[0].axes[-1].shard_name
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ())
    return [Signature((t,), (t,), ((t if t == S(name) else use_of(t)),) * len(op.params)) for t in places]


BLOCK_LINEAR = OpDef(  # a matrix for the features of each head
    "block_linear",
    as_first,
    _block_signatures,
    lambda op, ins: Facts(),
    flops=lambda op, ins, symbols: 2 * ins[0].numel(symbols) * op.params[0].axes[1].length,
    saves=lambda op: ("in0",),
)

OPS = (
    *(CONV, DOCUMENT_CONV, LATER_CONV, STATE_SPACE, LATER_STATE_SPACE, DELTA_RULE, LATER_DELTA_RULE),
    *_feature_scan("selective_scan", 4),
    *_feature_scan("gated_recurrence", 3),
    *(BLOCK_LINEAR, HEAD_RATES, LINEAR_ATTENTION, LATER_LINEAR_ATTENTION),
)
