"""Ranks that hold experts of their own, as an axis of the mesh that takes ranks: what experts are sent to others by."""

from __future__ import annotations

from specc.extension import Extension, LayoutAxis

EXPERT = LayoutAxis(
    "ep",
    "Ranks that hold different samples, and different experts.",
    "experts are split over ep = {}, tokens go to them by all-to-all",
    tokens=("batch",),
    shards=("experts",),
    data=True,
)
EXTENSION = Extension("expert parallel", axes=(EXPERT,))
