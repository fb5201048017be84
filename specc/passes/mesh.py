"""The device mesh of a layout."""

from __future__ import annotations

from specc.extension import LayoutAxis
from specc.ir.types import MeshAxis
from specc.spec.core import Layout

HEADS = ("heads", "kv_heads")


def mesh_of(layout: Layout) -> tuple[MeshAxis, ...]:
    """Axes that placing works on, outer to inner; those of size 1 are left out."""
    return tuple(_axis(layout, axis) for axis in layout.tables.axes.values() if layout.size(axis.name) > 1)


def _axis(layout: Layout, axis: LayoutAxis) -> MeshAxis:
    known = layout.tables
    by_components = (name for component in known.components.values() for name in component.shards)
    shards = dict.fromkeys([*(by_components if axis.features else ()), *axis.shards])
    tokens = axis.tokens if not axis.when or getattr(layout, axis.when) else ()
    like = (name for name, others in known.alike.items() if axis.data and set(others) & set(tokens))
    heads = HEADS if axis.name == "cp" and layout.context.how == "ulysses" else ()
    return MeshAxis(axis.name, layout.size(axis.name), (*tokens, *like), tuple(shards), axis.data, heads)
