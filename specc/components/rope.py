"""Rotary positions (Su et al. 2021), halves rotated against each other, with the llama3 and linear scalings."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from specc.components.base import Config, Dim

Positive = Annotated[float, Field(gt=0.0)]


class Llama3Scaling(Config):
    """Low frequencies are divided by `factor`, high ones kept, those between blended (Llama 3.1, section 3.2)."""

    kind: Literal["llama3"] = "llama3"
    factor: Positive
    """How much longer the context becomes."""
    low_freq: Positive = 1.0
    """Turns over the original context below which a frequency is fully scaled."""
    high_freq: Positive = 4.0
    """Turns over the original context above which a frequency is kept."""
    original_seq: Dim = 8192
    """Context length before scaling."""


class LinearScaling(Config):
    """Positions divided by `factor`."""

    kind: Literal["linear"]
    factor: Positive
    """How much longer the context becomes."""


class Rope(Config):
    """Rotary positions on queries and keys."""

    theta: Positive = 10000.0
    """Base of the wavelengths."""
    scaling: Annotated[Llama3Scaling | LinearScaling, Field(discriminator="kind")] | None = None
    """How wavelengths are stretched for longer contexts."""
