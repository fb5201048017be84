"""One vector of a row of tokens, and the loss of vectors."""

from __future__ import annotations

from dataclasses import replace

from specc.ir.op import Op
from specc.ir.types import I, MeshAxis, P, R, TensorType
from specc.ops.base import Facts, OpDef, Signature, Stream, Types
from specc.ops.places import demand, whole_or_tokens


def _pool_out(op: Op, ins: Types) -> Types:
    """[batch, seq, d_model] -> [batch, d_model]"""
    batch, _, *features = ins[0].axes
    return (replace(ins[0], axes=(batch, *features)),)


def _pool_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    """Rows are whole."""
    out, real = _pool_out(op, ins)[0], ins[1:]
    return [
        Signature((t, *(demand(x, t) for x in real)), (t,))
        for t in whole_or_tokens(out, mesh, stream(out), (out.axes[-1].shard_name,))
    ]


def _pool_facts(op: Op, ins: Types) -> Facts:
    """`how`: the first or the last token, the mean of all or the largest of each feature; of the real ones."""
    return Facts(mix=(ins[0].axes[1].name,), linear=(0,) if op.text("how") != "max" else ())


POOL = OpDef("pool", _pool_out, _pool_signatures, _pool_facts, saves=lambda op: ("in0",))


def _error_signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    if mesh.data:
        tokens = stream(ins[1])
        return [Signature((tokens, tokens), (P,))]
    return [Signature((I, R), (I,))]


SQUARED_ERROR = OpDef(  # summed over all numbers that are to be met
    "squared_error",
    lambda op, ins: (TensorType((), grad=True),),
    _error_signatures,
    lambda op, ins: Facts(contract=tuple(axis.shard_name for axis in ins[0].axes)),
    flops=lambda op, ins, symbols: 3 * ins[0].numel(symbols),
    saves=lambda op: ("in0",),
)

OPS = (POOL, SQUARED_ERROR)
