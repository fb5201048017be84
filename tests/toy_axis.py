"""A plug-in that brings an axis of the mesh: ranks that hold different parts of every sample (context parallel)."""

from __future__ import annotations

from specc.extension import Extension, LayoutAxis
from specc.ir.types import TOKEN_AXES

CONTEXT = Extension(
    "context",
    axes=(
        LayoutAxis(
            "cp",
            "Ranks that hold different parts of every sample.",
            "every sample is split over cp = {}",
            tokens=TOKEN_AXES,
            data=True,
        ),
    ),
)
