"""Attention of a decoder over the encoder's output (Vaswani et al. 2017, 3.2.3)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specc.components import heads, qk_norm
from specc.components.base import Component, Given, Problems
from specc.components.heads import Heads
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class CrossAttention(Heads):
    """Attention of the decoder over the encoder's output."""


def rules(config: CrossAttention, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Of heads."""
    yield from heads.rules(config, d_model, stated("head_dim"))
    yield from heads.size_rule(config, d_model)


def lower(config: CrossAttention, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, target, d_model], memory [batch, source, d_model] -> as x."""
    found: list[Ref] = []
    memory = b.memory or features
    for name, source, inner in (("q", x, features), ("k", given["memory"], memory), ("v", given["memory"], memory)):
        made = heads.flat(config, b, source, name, inner)
        if name != "v":
            made = qk_norm.over_width(config.qk_norm, b, made, f"{name}_norm", heads.joint(config, name))
        made = heads.split(config, b, made, name)
        if name != "v":
            made = qk_norm.over_heads(config.qk_norm, b, made, f"{name}_norm", *heads.axes(config, name), rotated=False)
        found.append(made)
    q, k, v = found
    mixed = heads.attended(config, b, q, k, v, given.get("memory_mask"))
    return heads.finished(config, b, x, mixed, features)


CROSS_ATTENTION = Component(
    "cross_attention",
    CrossAttention,
    "CrossAttention",
    lower,
    smallest=heads.SMALLEST,
    shards=heads.SHARDS,
    grows=("heads", "kv_heads"),
    split_by_tp=heads.split_by_tp,
    spread=heads.spread,
    results=heads.results,
    shrink=heads.shrink,
    normed=heads.normed,
    reads=("memory", "memory_mask"),
    resolve=lambda config, d_model, role: heads.resolved(config, d_model),
    rules=rules,
    decided=lambda config, role: heads.decided(config),
    verb="cross_attend",
    summary=heads.summary,
    synonyms={"cross_attention": ("cross_attn", "encoder_attn", "encoder_attention"), **heads.SYNONYMS},
)
