"""RMS and layer norm over the last axis."""

from __future__ import annotations

from collections.abc import Mapping

from specc.ir.op import Op
from specc.ir.types import MeshAxis, S
from specc.ops.base import Facts, OpDef, Signature, Stream, Traffic, Types, as_first, shardable
from specc.ops.places import use_of, whole_or_tokens


def _signatures(op: Op, ins: Types, mesh: MeshAxis, stream: Stream) -> list[Signature]:
    features = ins[0].axes[-1]
    found = [
        Signature((t,), (t,), (use_of(t),) * len(op.params))
        for t in whole_or_tokens(ins[0], mesh, stream(ins[0]), (features.shard_name,))
    ]
    own = S(features.shard_name)
    split = Signature((own,), (own,), (own,) * len(op.params), _how(op))
    parts = features.length // op.number("width") if _grouped(op) else features.length
    return [*found, split] if shardable(features, mesh) and not mesh.data and parts % mesh.size == 0 else found


def _grouped(op: Op) -> bool:
    return "width" in dict(op.attrs)


def _how(op: Op) -> str:
    """Of features that ranks share: each norms its own groups, or they sum up what all have together."""
    return "own_groups" if _grouped(op) else "sum_statistic"


def _facts(op: Op, ins: Types) -> Facts:
    name = ins[0].axes[-1].shard_name
    return Facts(mix=(name,), lowered={name: _how(op)})


def _traffic(op: Op, lowering: str) -> Traffic:
    count = {"all-reduce": 2 if op.kind.endswith("layer_norm") else 1}
    return Traffic(count, count) if lowering == "sum_statistic" else Traffic()


def _flops(op: Op, ins: Types, symbols: Mapping[str, int]) -> int:
    return 5 * ins[0].numel(symbols)


KINDS = tuple(
    f"{grouped}{offset}{kind}_norm"
    for kind in ("rms", "layer")
    for offset in ("", "offset_")
    for grouped in ("", "grouped_")
)
"""`offset`: the factor is a constant plus the weight; `grouped`: of each group of features. Some have no parameters."""

OPS = tuple(
    OpDef(kind, as_first, _signatures, _facts, flops=_flops, saves=lambda op: ("in0",), traffic=_traffic)
    for kind in KINDS
)
