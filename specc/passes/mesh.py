"""The device mesh of a layout."""

from __future__ import annotations

from specc.ir.types import MeshAxis
from specc.spec.core import Layout

TOKENS = ("seq", "source", "target")
SHARDS = ("heads", "kv_heads", "ffn", "vocab")


def mesh_of(layout: Layout) -> tuple[MeshAxis, ...]:
    """Axes that placing works on, outer to inner; those of size 1 are left out."""
    axes = (
        MeshAxis("dp", layout.dp, tokens=("batch",)),
        MeshAxis("tp", layout.tp, tokens=TOKENS if layout.sequence_parallel else (), shards=SHARDS),
    )
    return tuple(axis for axis in axes if axis.size > 1)
