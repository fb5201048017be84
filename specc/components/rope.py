"""Rotary positions (Su et al. 2021): features in pairs, each pair turned by an angle that grows with the position."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, Tag

from specc.components import scaling
from specc.components.base import Arithmetic, Config, Dim, Problem, Problems, Synonyms, Table, Tokens, by_kind, settled
from specc.components.scaling import LinearScaling, Llama3Scaling, Scaling
from specc.ir.op import Attr, Ref

if TYPE_CHECKING:
    from specc.lower.builder import Builder

__all__ = ["LinearScaling", "Llama3Scaling", "Rope", "by_length", "rules", "shrink", "table", "turn"]

SYNONYMS: Synonyms = {
    "rope": ("rotary", "rope_parameters", "rope_theta", "rope_scaling"),
    "theta": ("rope_theta", "base", "rotary_base", "rope_base"),
    "dim": ("rotary_dim", "rotary_pct", "partial_rotary_factor"),
    "pairing": ("interleaved", "rope_interleave", "rotary_interleaved"),
    "adjacent": ("interleaved",),
    "scaling": ("rope_scaling",),
    **scaling.SYNONYMS,
}
Theta = Annotated[Annotated[Annotated[float, Field(ge=1.0, le=1e15)], Tag("number")] | Arithmetic, by_kind]


class Rope(Config):
    """Rotary positions on queries and keys."""

    theta: Theta = 10000.0
    """Base of the wavelengths."""
    dim: Dim | None = None
    """Rotated features of a head, the first ones. Default: head_dim."""
    pairing: Literal["halves", "adjacent"] = "halves"
    """Feature i turns with i + dim / 2, or 2i with 2i + 1."""
    scaling: Scaling | None = None
    """How wavelengths are stretched for longer contexts."""


def rules(config: Rope, at: tuple[str | int, ...], head_dim: int) -> Problems:
    """What must hold of a rope that is written there in a component."""
    dim = config.dim or head_dim
    if config.dim is not None and (dim % 2 or dim > head_dim):
        what = f"is not even: {dim} features are no pairs" if dim % 2 else f"is more than head_dim = {head_dim}"
        yield Problem("E212", (*at, "dim"), f"rope.dim = {dim} {what}", f"an even number up to {head_dim}")
    elif config.scaling is not None:
        for problem in scaling.rules(config.scaling, dim):
            yield Problem(problem.code, (*at, "scaling", *problem.path), problem.message, problem.help)


def by_length(config: Rope | None) -> bool:
    """Whether rotations depend on how long the sequence is."""
    return config is not None and config.scaling is not None and scaling.by_length(config.scaling)


def shrink(config: Rope, head_dim: int, small: int) -> Rope:
    """Of smaller heads the same part is rotated, in whole pairs."""
    dim = None if config.dim is None else max(2, config.dim * small // head_dim // 2 * 2)
    made = config.scaling and scaling.shrink(config.scaling, dim or small)
    return config.model_copy(update={"dim": dim, "scaling": made})


def table(config: Rope, head_dim: int) -> Table:
    """What heads of that size are rotated by; tables are told apart by theta."""
    shared = config.model_copy(update={"dim": None, "pairing": "halves"})
    return Table("rope", f"{settled(config.theta):.0f}", shared, config.dim or head_dim, lower)


def lower(config: Rope, b: Builder, tokens: Tokens, head_dim: int, hint: str) -> Ref:
    """Cosines and sines [pair, seq, head_dim], or [pair, batch, 1, seq, head_dim]; `scaling`: kind and its numbers."""
    theta = settled(config.theta)
    stretched: Attr = None if config.scaling is None else scaling.numbers(config.scaling, head_dim, theta)
    return b.op("rope_table", tokens.positions, hint=hint, head_dim=head_dim, theta=theta, scaling=stretched)


def turn(config: Rope, b: Builder, x: Ref, table: Ref, name: str, hint: str = "") -> Ref:
    """Queries or keys [batch, heads, seq, head_dim], rotated by the table."""
    if config.pairing == "adjacent":
        return b.op("rope", x, table, name=f"{name}_rope", hint=hint or name, adjacent=True)
    return b.op("rope", x, table, name=f"{name}_rope", hint=hint or name)
