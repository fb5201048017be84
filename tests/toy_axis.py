"""A plug-in that brings an axis of the mesh: ranks that hold different parts of every sample."""

from __future__ import annotations

from specc.extension import Extension, LayoutAxis
from specc.ir.types import TOKEN_AXES

PARTS = Extension(
    "parts",
    axes=(
        LayoutAxis(
            "cut",
            "Ranks that hold different parts of every sample.",
            "every sample is split over cut = {}",
            tokens=TOKEN_AXES,
            data=True,
        ),
    ),
)
