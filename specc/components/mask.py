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
    prefix: bool = False
    window: int | None = None
    chunk: int | None = None

    @property
    def mark(self) -> str:
        """What tells it from other masks."""
        limits = [f"{name}_{size}" for name in ("window", "chunk") if (size := getattr(self, name)) is not None]
        return "_".join([*(["prefix"] if self.prefix else []), *limits] or ["causal"])


def table(mask: Mask) -> tuple[Table, ...]:
    """The mask of a stack's own tokens where that is more than `own_mask`, which hides padding alone."""
    more = mask.causal or mask.window is not None or mask.chunk is not None
    return (Table("mask", mask.mark, mask, 0, _lower),) if more else ()


def _lower(config: Mask, b: Builder, tokens: Tokens, size: int, hint: str) -> Ref:
    """[seq, keys], or [batch, 1, seq, keys] where rows differ."""
    operands = dict(tokens.apart)
    if config.chunk is not None:
        operands |= {"chunks": tokens.positions, "chunks of keys": tokens.positions}
    if config.causal:
        operands |= {"queries": tokens.index, "keys": tokens.index}
    if config.prefix and tokens.marked is not None:
        operands |= {"marked": tokens.marked}
    if config.window is not None:
        operands |= {"near": tokens.index, "near of keys": tokens.index}
    return made(b, operands, hint, config.window, config.chunk)


def made(
    b: Builder, operands: Mapping[str, Ref], hint: str = "mask", window: int | None = None, chunk: int | None = None
) -> Ref:
    """The mask of these operands: see the op."""
    of = tuple(operands)
    if chunk is not None:
        return b.op("mask", *operands.values(), hint=hint, of=of, chunk=chunk)
    if window is not None:
        return b.op("mask", *operands.values(), hint=hint, of=of, window=window)
    return b.op("mask", *operands.values(), hint=hint, of=of)
