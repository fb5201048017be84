"""RMS and layer norm over the last axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from specc.ir.op import Op
from specc.ir.types import MeshAxis, Place, TensorType
from specc.ops.base import Facts, OpDef, Signature, Types
from specc.ops.places import use_of, whole_or_tokens


def _same(op: Op, ins: Types) -> Types:
    return (ins[0],)


def _signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Callable[[TensorType], Place]) -> list[Signature]:
    normed = (ins[0].axes[-1].shard_name,)
    return [
        Signature((t,), (t,), (use_of(t),) * len(op.params))
        for t in whole_or_tokens(ins[0], mesh, stream(ins[0]), normed)
    ]


def _facts(op: Op, ins: Types) -> Facts:
    return Facts(mix=(ins[0].axes[-1].shard_name,))


def _flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 5 * ins[0].numel(symbols)


OPS = tuple(
    OpDef(kind, _same, _signatures, _facts, flops=_flops, saves=lambda op: ("in0",))
    for kind in ("rms_norm", "layer_norm")
)
