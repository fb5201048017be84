"""Multi-head attention (Vaswani et al. 2017, 3.2) with grouped key and value heads (Ainslie et al. 2023)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AfterValidator, Tag

from specc.components.base import Config, Dim, Factor, Problem, Problems, Rate, by_kind, choices, divisors
from specc.components.rope import Rope
from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


PROJECTIONS = ("q", "k", "v", "o")
Projections = Annotated[list[Literal["q", "k", "v", "o"]], AfterValidator(tuple)]


class _Heads(Config):
    heads: Dim
    """Query heads."""
    kv_heads: Dim | None = None
    """Key and value heads, each shared by heads / kv_heads query heads. Default: heads."""
    head_dim: Dim | None = None
    """Features of a head. Default: d_model / heads."""
    bias: Annotated[Annotated[bool, Tag("bool")] | Annotated[Projections, Tag("list")], by_kind] = False
    """Which projections have a bias: all, none, or those listed."""
    scale: Factor | None = None
    """Factor on the scores. Default: 1 / sqrt(head_dim)."""
    dropout: Rate = 0.0
    """Rate on the attention weights."""

    def has_bias(self, projection: str) -> bool:
        return self.bias if isinstance(self.bias, bool) else projection in self.bias


class Attention(_Heads):
    """Self-attention."""

    causal: bool = True
    """A token sees itself and those before it. Default: true in a decoder, false in an encoder."""
    rope: Rope | None = None
    """Rotary positions."""


class CrossAttention(_Heads):
    """Attention of the decoder over the encoder's output."""


Heads = TypeVar("Heads", bound="_Heads")


def resolved(config: Heads, d_model: int) -> Heads:
    """With kv_heads and head_dim filled in (rounded down where d_model does not divide: a rule reports that)."""
    return config.model_copy(
        update={
            "kv_heads": config.kv_heads or config.heads,
            "head_dim": config.head_dim or max(1, d_model // config.heads),
        }
    )


def rules(config: Attention | CrossAttention, d_model: int, stated: bool) -> Problems:
    """What must hold of a resolved config; `stated`: the spec gives head_dim itself."""
    kv_heads, head_dim = config.kv_heads or config.heads, config.head_dim or 1
    if not stated and d_model % config.heads:
        yield Problem(
            "E210",
            ("heads",),
            f"d_model = {d_model} cannot be split into {plural(config.heads, 'head')}",
            f"give head_dim, or heads that divide it: {choices(divisors(d_model))}",
        )
    if config.heads % kv_heads:
        yield Problem(
            "E211",
            ("kv_heads",),
            f"{plural(config.heads, 'head')} cannot share {plural(kv_heads, 'kv_head')} evenly",
            f"with {plural(config.heads, 'head')}, kv_heads can be {choices(divisors(config.heads))}",
        )
    twice = [name for name in PROJECTIONS if not isinstance(config.bias, bool) and config.bias.count(name) > 1]
    if twice:
        yield Problem("E227", ("bias",), f"bias lists {' and '.join(twice)} twice", "list each once")
    rope = config.rope if isinstance(config, Attention) else None
    if rope is not None and head_dim % 2 and (stated or d_model % config.heads == 0):
        yield Problem("E212", ("rope",), f"rope rotates pairs, but head_dim = {head_dim} is odd", "make head_dim even")
    if rope is not None and rope.scaling is not None and rope.scaling.kind == "llama3":
        low, high = rope.scaling.low_freq, rope.scaling.high_freq
        if high <= low:
            message = f"high_freq = {high:g} is not above low_freq = {low:g}"
            yield Problem("E219", ("rope", "scaling", "high_freq"), message, "make high_freq the larger one")


def split_by_tp(config: _Heads) -> tuple[tuple[str, int], ...]:
    """What tp must divide: keys and numbers of a resolved config."""
    kv_heads = config.kv_heads or config.heads
    shared = config.heads % kv_heads == 0  # else a rule has told
    return (("heads", config.heads), ("kv_heads", kv_heads)) if shared else (("heads", config.heads),)


def lower(
    config: Attention | CrossAttention,
    b: Builder,
    x: Ref,
    memory: Ref,
    mask: Ref | None,
    rope: Ref | None,
    features: Axis,
) -> Ref:
    """x [batch, seq, d_model], keys and values from memory (x itself in self-attention) -> [batch, seq, d_model]."""
    heads, kv_heads, head_dim = config.heads, config.kv_heads, config.head_dim
    assert kv_heads is not None and head_dim is not None, "attention is lowered resolved"
    values: list[Ref] = []
    for name, source, axis, count in (
        ("q", x, "heads", heads),
        ("k", memory, "kv_heads", kv_heads),
        ("v", memory, "kv_heads", kv_heads),
    ):
        joint = Axis(f"{axis}*head_dim", count * head_dim)
        flat = b.linear(source, name, joint, features, config.has_bias(name), hint=name)
        values.append(b.op("split", flat, name=f"{name}_heads", hint=name, heads=count))
    q, k, v = values
    if rope is not None:
        q = b.op("rope", q, rope, name="q_rope", hint="q")
        k = b.op("rope", k, rope, name="k_rope", hint="k")
    x = b.op(
        "attention",
        *((q, k, v) if mask is None else (q, k, v, mask)),
        name="core",
        causal=isinstance(config, Attention) and config.causal,
        scale=config.scale,
        dropout=config.dropout,
        grouped=heads != kv_heads,
    )
    x = b.op("merge", x)
    return b.linear(x, "o", features, Axis("heads*head_dim", heads * head_dim), config.has_bias("o"), last=True)
