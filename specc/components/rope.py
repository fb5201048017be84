"""Rotary positions (Su et al. 2021), halves rotated against each other, with the llama3 and linear scalings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from specc.components.base import Config, Dim, Problem, Problems, Stretch, Synonyms, Table, Tokens
from specc.ir.op import Attr, Ref

if TYPE_CHECKING:
    from specc.lower.builder import Builder

SYNONYMS: Synonyms = {
    "rope": ("rotary", "rope_parameters", "rope_theta", "rope_scaling"),
    "theta": ("rope_theta", "base", "rotary_base", "rope_base"),
    "scaling": ("rope_scaling",),
    "low_freq": ("low_freq_factor",),
    "high_freq": ("high_freq_factor",),
    "original_seq": ("original_max_position_embeddings",),
}
Theta = Annotated[float, Field(ge=1.0, le=1e15)]


class Llama3Scaling(Config):
    """Low frequencies are divided by `factor`, high ones kept, those between blended (Llama 3.1, section 3.2)."""

    kind: Literal["llama3"]
    """Tells the scalings apart."""
    factor: Stretch
    """How much longer the context becomes."""
    low_freq: Stretch = 1.0
    """Turns over the original context below which a frequency is fully scaled."""
    high_freq: Stretch = 4.0
    """Turns over the original context above which a frequency is kept."""
    original_seq: Dim = 8192
    """Context length before scaling."""


class LinearScaling(Config):
    """Positions divided by `factor`."""

    kind: Literal["linear"]
    """Tells the scalings apart."""
    factor: Stretch
    """How much longer the context becomes."""


class Rope(Config):
    """Rotary positions on queries and keys."""

    theta: Theta = 10000.0
    """Base of the wavelengths."""
    scaling: Annotated[Llama3Scaling | LinearScaling, Field(discriminator="kind")] | None = None
    """How wavelengths are stretched for longer contexts."""


def rules(config: Rope, at: tuple[str | int, ...]) -> Problems:
    """What must hold of a rope that is written there in a component."""
    if config.scaling is not None and config.scaling.kind == "llama3":
        low, high = config.scaling.low_freq, config.scaling.high_freq
        if high <= low:
            message = f"high_freq = {high:g} is not above low_freq = {low:g}"
            yield Problem("E219", (*at, "scaling", "high_freq"), message, "make high_freq the larger one")


def table(config: Rope, head_dim: int) -> Table:
    """What heads of that size are rotated by; tables are told apart by theta."""
    return Table("rope", f"{config.theta:.0f}", config, head_dim, lower)


def lower(config: Rope, b: Builder, tokens: Tokens, head_dim: int, hint: str) -> Ref:
    """Cosines and sines [pair, seq, head_dim], or [pair, batch, 1, seq, head_dim]; `scaling`: kind and its numbers."""
    scaling: Attr = None
    if isinstance(config.scaling, Llama3Scaling):
        s = config.scaling
        scaling = ("llama3", s.factor, s.low_freq, s.high_freq, s.original_seq)
    elif config.scaling is not None:
        scaling = ("linear", config.scaling.factor)
    return b.op("rope_table", tokens.positions, hint=hint, head_dim=head_dim, theta=config.theta, scaling=scaling)
