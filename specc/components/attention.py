"""Multi-head attention (Vaswani et al. 2017, 3.2) with grouped key and value heads (Ainslie et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specc.components import heads, mask, rope
from specc.components.base import Component, Given, Problem, Problems, Synonyms, Table
from specc.components.heads import Heads
from specc.components.rope import Rope
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Attention(Heads):
    """Self-attention."""

    causal: bool = True
    """A token sees itself and those before it. Default: true in a decoder, false in an encoder."""
    rope: Rope | None = None
    """Rotary positions."""


def resolve(config: Attention, d_model: int, role: str) -> Attention:
    """With every default filled in."""
    if "causal" not in config.model_fields_set:
        config = config.model_copy(update={"causal": role == "decoder"})
    return heads.resolved(config, d_model)


def rules(config: Attention, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Of heads, and of rotated ones."""
    own, (_, head_dim) = stated("head_dim"), heads.sizes(config)
    yield from heads.rules(config, d_model, own)
    if config.rope is not None:
        if head_dim % 2 and (own or d_model % config.heads == 0):
            message = f"rope rotates pairs, but head_dim = {head_dim} is odd"
            yield Problem("E212", ("rope",), message, "make head_dim even")
        yield from rope.rules(config.rope, ("rope",))
    yield from heads.size_rule(config, d_model)


def tables(config: Attention) -> tuple[Table, ...]:
    """Of rope and mask, where there are any."""
    rotary = () if config.rope is None else (rope.table(config.rope, heads.sizes(config)[1]),)
    return (*rotary, *mask.table(config.causal))


def decided(config: Attention, role: str) -> dict[str, tuple[object, str]]:
    """Values that defaults decided, and how."""
    return {**heads.decided(config), "causal": (config.causal, f"in the {role}")}


def lower(config: Attention, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    found = {table.name: given[table] for table in tables(config)}
    return heads.lower(config, b, x, x, found.get("mask", given.get("own_mask")), found.get("rope"), features)


SYNONYMS: Synonyms = {
    "attention": ("attn", "self_attention", "self_attn", "mha", "gqa", "mqa"),
    "causal": ("is_causal", "is_decoder"),
    **heads.SYNONYMS,
    **rope.SYNONYMS,
}

ATTENTION = Component(
    "attention",
    Attention,
    "Attention",
    lower,
    smallest=heads.SMALLEST,
    shards=heads.SHARDS,
    split_by_tp=heads.split_by_tp,
    results=heads.results,
    shrink=heads.shrink,
    reads=("own_mask",),
    tables=tables,
    resolve=resolve,
    rules=rules,
    decided=decided,
    verb="attend",
    summary=heads.summary,
    synonyms=SYNONYMS,
)
