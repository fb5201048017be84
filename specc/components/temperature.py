"""Queries that grow with the log of their position, so that attention stays sharp over long contexts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from specc.components.base import Config, Dim, Scale, Synonyms, Table, Tokens
from specc.ir.op import Ref

if TYPE_CHECKING:
    from specc.lower.builder import Builder

SYNONYMS: Synonyms = {"temperature": ("attn_temperature_tuning",), "floor": ("floor_scale",)}


class Temperature(Config):
    """Queries are multiplied by 1 + scale * log(1 + floor((position + offset) / floor))."""

    floor: Dim
    """Tokens for which the factor stays."""
    scale: Scale
    """How fast it grows."""
    offset: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Added to positions."""


def table(config: Temperature) -> Table:
    """The factor of each position."""
    return Table("temperature", f"{config.floor}", config, 1, _lower)


def _lower(config: Temperature, b: Builder, tokens: Tokens, size: int, hint: str) -> Ref:
    """[seq, 1], or [batch, 1, seq, 1] where rows differ."""
    floor, scale, offset = config.floor, config.scale, config.offset
    return b.op("temperature", tokens.positions, hint=hint, floor=floor, scale=scale, offset=offset)
