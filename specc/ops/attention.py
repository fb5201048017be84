"""Heads: split and merge, rotary positions, and the attention core (one op, whatever kernel computes it)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod

from specc.ir.op import Op
from specc.ir.types import Axis, I, MeshAxis, P, R, S
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, shardable
from specc.ops.places import demand, shards_of, use_of, whole_or_tokens


def _split_out(op: Op, ins: Types) -> Types:
    """[batch, seq, heads*head_dim] or [seq, batch, heads*head_dim] -> [batch, heads, seq, head_dim]"""
    batch, seq, joint = ins[0].axes
    if seq.name == "batch":
        batch, seq = seq, batch
    (heads, n), (head_dim, features) = joint.factors
    return (replace(ins[0], axes=(batch, Axis(heads, n, whole=joint.whole), seq, Axis(head_dim, features))),)


def _merge_out(op: Op, ins: Types) -> Types:
    """[batch, heads, seq, head_dim] -> [batch, seq, heads*head_dim]; with `first` tokens, seq first"""
    batch, heads, seq, head_dim = ins[0].axes
    joint = Axis.of(**{heads.name: heads.length, head_dim.name: head_dim.length})._replace(whole=heads.whole)
    first, second = (seq, batch) if dict(op.attrs).get("first") == "tokens" else (batch, seq)
    return (replace(ins[0], axes=(first, second, joint)),)


def _any(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    places = [P, *shards_of(ins[0], mesh), R, *(() if mesh.data else (I,))]
    return [Signature((t,), (t,)) for t in places]


def _linear_facts(op: Op, ins: Types) -> Facts:
    return Facts(linear=(0,))


SPLIT = OpDef("split", _split_out, _any, _linear_facts)
MERGE = OpDef("merge", _merge_out, _any, _linear_facts)


def _rope_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    x, table = ins
    return [
        Signature((t, demand(table, t)), (t,)) for t in whole_or_tokens(x, mesh, stream(x), (x.axes[-1].shard_name,))
    ]


def _rope_facts(op: Op, ins: Types) -> Facts:
    return Facts(mix=(ins[0].axes[-1].shard_name,), linear=(0,))


ROPE = OpDef(
    "rope",
    lambda op, ins: (ins[0],),
    _rope_signatures,
    _rope_facts,
    flops=lambda op, ins, symbols: 3 * ins[0].numel(symbols),
)


def _attention_out(op: Op, ins: Types) -> Types:
    q, _, v = ins[:3]
    return (replace(q, axes=(*q.axes[:-1], v.axes[-1])),)


def _flagged(op: Op) -> bool:
    """Whether later keys are hidden by a flag, not by a mask."""
    return bool(dict(op.attrs).get("causal"))


def _attention_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    heads, kv_heads = ins[0].axes[1], ins[1].axes[1]
    found: list[Signature] = []
    if mesh.heads:
        own = S(heads.name)
        return [Signature((own, *[S(kv_heads.name)] * 2, *(demand(t, own) for t in ins[3:])), (own,))]
    if shardable(heads, mesh) and shardable(kv_heads, mesh):
        own = S(heads.name)
        found.append(Signature((own, *[S(kv_heads.name)] * 2, *(demand(t, own) for t in ins[3:])), (own,)))
    if "batch" in mesh.tokens:
        found.append(Signature(tuple(demand(t, S("batch")) for t in ins), (S("batch"),)))
    queries = ins[0].axes[2].name
    if mesh.data and queries in mesh.tokens and not _flagged(op):
        masks = tuple(demand(t, S(queries)) for t in ins[3:])
        found.append(Signature((S(queries), R, R, *masks), (S(queries),)))
    whole = (R,) if mesh.data else (R, I)
    return [*found, *(Signature(tuple(demand(x, t) for x in ins), (t,)) for t in whole)]


def _attention_facts(op: Op, ins: Types) -> Facts:
    keys, kv_heads, heads = ins[1].axes[2].name, ins[1].axes[1].name, ins[0].axes[1].name
    queries = (ins[0].axes[2].name,) if _flagged(op) else ()  # what each may see depends on its place among all
    cached = {kv_heads: heads, keys: "keys"}
    return Facts(
        rename={1: cached, 2: {**cached, "head_dim": "value_dim"}},
        results={0: {"head_dim": "value_dim"}},
        mix=("keys", "head_dim", *queries),
        linear=(2,),
    )


def _attention_flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    """Two matmuls over all pairs of positions; a causal mask is not subtracted."""
    keys = ins[1].axes[2].size
    count = keys if isinstance(keys, int) else symbols[keys]
    return 2 * prod((ins[0].numel(symbols), count)) + 2 * prod((_attention_out(op, ins)[0].numel(symbols), count))


def _shares(ins: Types) -> tuple[Axis, Axis]:
    return ins[0].axes[1], ins[1].axes[1]


def _plain_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Scores of sinks are split as heads are."""
    heads = S(ins[0].axes[1].name)
    found = _attention_signatures(op, ins, mesh, stream)
    return [
        replace(s, params=(heads if s.outputs[0] == heads else use_of(s.outputs[0]),) * len(op.params)) for s in found
    ]


ATTENTION = OpDef(
    "attention",
    _attention_out,
    _attention_signatures,
    _attention_facts,
    flops=_attention_flops,
    saves=lambda op: ("in0", "in1", "in2", "out0"),
    random=lambda op: bool(op.attr("dropout")),
    any_order=True,
    shares=_shares,
)

PLAIN_ATTENTION = OpDef(
    "plain_attention",  # written out; of a score for each head that takes part and is dropped, a parameter
    _attention_out,
    _plain_signatures,
    _attention_facts,
    flops=_attention_flops,
    saves=lambda op: ("in0", "in1", "in2", "mask"),
    random=lambda op: bool(op.attr("dropout")),
    any_order=True,
    shares=_shares,
)


def _per_head_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Parameters have the heads of the operand."""
    heads = op.params[0].axes[0].shard_name
    places = whole_or_tokens(ins[0], mesh, stream(ins[0]), ())
    return [Signature((t,), (t,), ((t if t == S(heads) else use_of(t)),) * len(op.params)) for t in places]


HEAD_SCALE = OpDef(
    "head_scale",  # a factor, and an offset, of each feature of each head
    lambda op, ins: (ins[0],),
    _per_head_signatures,
    lambda op, ins: Facts(linear=(0, 1) if len(op.params) == 1 else ()),
    saves=lambda op: ("in0",),
)


def _temper_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    x, table = ins
    return [Signature((t, demand(table, t)), (t,)) for t in whole_or_tokens(x, mesh, stream(x), ())]


TEMPER = OpDef("temper", lambda op, ins: (ins[0],), _temper_signatures, lambda op, ins: Facts(linear=(0,)))

OPS = (SPLIT, MERGE, ROPE, ATTENTION, PLAIN_ATTENTION, HEAD_SCALE, TEMPER)
