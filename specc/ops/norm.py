"""RMS and layer norm over the last axis."""

from __future__ import annotations

from collections.abc import Mapping

from specc.ir.op import Op
from specc.ir.types import MeshAxis
from specc.ops.base import Facts, OpDef, Signature, Stream, Types, as_first
from specc.ops.places import use_of, whole_or_tokens


def _signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    normed = (ins[0].axes[-1].shard_name,)
    return [
        Signature((t,), (t,), (use_of(t),) * len(op.params))
        for t in whole_or_tokens(ins[0], mesh, stream(ins[0]), normed)
    ]


def _facts(op: Op, ins: Types) -> Facts:
    return Facts(mix=(ins[0].axes[-1].shard_name,))


def _flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 5 * ins[0].numel(symbols)


KINDS = tuple(
    f"{grouped}{offset}{kind}_norm"
    for kind in ("rms", "layer")
    for offset in ("", "offset_")
    for grouped in ("", "grouped_")
)
"""`offset`: the factor is a constant plus the weight; `grouped`: of each group of features. Some have no parameters."""

OPS = tuple(OpDef(kind, as_first, _signatures, _facts, flops=_flops, saves=lambda op: ("in0",)) for kind in KINDS)
