"""The device mesh of a layout."""

from __future__ import annotations

from specc.ir.types import TOKEN_AXES, MeshAxis
from specc.spec.core import Layout


def mesh_of(layout: Layout) -> tuple[MeshAxis, ...]:
    """Axes that placing works on, outer to inner; those of size 1 are left out."""
    split = dict.fromkeys(axis for component in layout.tables.components.values() for axis in component.shards)
    axes = (
        MeshAxis("dp", layout.dp, tokens=("batch",), data=True),
        MeshAxis("tp", layout.tp, tokens=TOKEN_AXES if layout.sequence_parallel else (), shards=(*split, "vocab")),
    )
    return tuple(axis for axis in axes if axis.size > 1)
