"""Which keys a query sees: a value made of positions, and of which tokens are real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from specc.components.base import Config, Table, Tokens
from specc.ir.op import Ref

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Mask(Config):
    """What attention to a stack's own tokens may see."""

    causal: bool


def table(causal: bool) -> tuple[Table, ...]:
    """The mask of a stack's own tokens where that is more than `own_mask`, which hides padding alone."""
    return (Table("mask", "causal", Mask(causal=True), 0, _lower),) if causal else ()


def _lower(config: Mask, b: Builder, tokens: Tokens, size: int, hint: str) -> Ref:
    """[seq, keys], or [batch, 1, seq, keys] where rows differ."""
    causal = {"queries": tokens.index, "keys": tokens.index} if config.causal else {}
    return made(b, {**tokens.apart, **causal}, hint)


def made(b: Builder, operands: Mapping[str, Ref], hint: str = "mask") -> Ref:
    """The mask of these operands: see the op."""
    return b.op("mask", *operands.values(), hint=hint, of=tuple(operands))
