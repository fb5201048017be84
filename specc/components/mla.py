"""Multi-head latent attention (DeepSeek-AI 2024, 2.1): heads are made of narrow latents, for queries and for keys."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Tag

from specc.components import heads, mask, norm, output_gate, rope
from specc.components.base import (
    Component,
    Config,
    Dim,
    Formula,
    Given,
    Problem,
    Problems,
    Rate,
    ScaleFormula,
    Synonyms,
    Table,
    by_kind,
    fewer,
    settled,
    too_large,
)
from specc.components.mask import Mask
from specc.components.norm import Norm, OwnNorm
from specc.components.output_gate import OwnGate
from specc.components.rope import Rope
from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder

LINEARS = ("q", "kv", "o")
Linears = Annotated[list[Literal["q", "kv", "o"]], AfterValidator(tuple)]
SMALL_RANK = 12  # features of a latent in proofs


class Mla(Config):
    """Multi-head latent attention. Generation keeps whole keys and values, as for attention."""

    heads: Dim
    """Heads of queries, keys and values alike."""
    q_rank: Dim | None = None
    """Features of the latent of queries. Default: none; queries are one linear, `q`."""
    kv_rank: Dim
    """Features of the latent of keys and values."""
    nope_dim: Dim
    """Features of a head that are not rotated; they stand first."""
    rope_dim: Dim
    """Features that all heads share on the side of keys; rotated where there is a rope."""
    v_head_dim: Dim | None = None
    """Features of a value head. Default: nope_dim."""
    norm: OwnNorm = True
    """A norm on each latent."""
    bias: Annotated[Annotated[bool, Tag("bool")] | Annotated[Linears, Tag("list")], by_kind] = False
    """Which linears have a bias: that of the input for queries, for keys and values, and o."""
    scale: ScaleFormula | None = None
    """Factor on the scores. Default: 1 / sqrt(nope_dim + rope_dim)."""
    q_scale: Formula = 1.0
    """Factor on queries."""
    kv_scale: Formula = 1.0
    """Factor on the latent of keys and values, behind its norm."""
    dropout: Rate = 0.0
    """Rate on the attention weights."""
    causal: bool = True
    """A token sees itself and those before it. Default: true in a decoder, false in an encoder."""
    window: Dim | None = None
    """A token sees those fewer than so many places away."""
    rope: Rope | None = None
    """Rotary positions."""
    output_gate: OwnGate = False
    """The result is multiplied by an activation of a linear of the input."""

    def has_bias(self, linear: str) -> bool:
        return self.bias if isinstance(self.bias, bool) else linear in self.bias


def resolve(config: Mla, d_model: int, role: str) -> Mla:
    """With every default filled in."""
    return config.model_copy(
        update={
            "causal": config.causal if "causal" in config.model_fields_set else role == "decoder",
            "v_head_dim": config.v_head_dim or config.nope_dim,
            "output_gate": output_gate.own(config.output_gate),
        }
    )


def value_dim(config: Mla) -> int:
    """v_head_dim of a resolved config."""
    assert config.v_head_dim is not None, "defaults are filled in first"
    return config.v_head_dim


def rules(config: Mla, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Of rotated features, and of sizes."""
    if config.rope is not None and config.rope.dim is not None:
        message = f"rope.dim = {config.rope.dim}, but what is rotated has rope_dim = {config.rope_dim} features"
        yield Problem("E212", ("rope", "dim"), message, "leave dim out; give rope_dim")
    elif config.rope is not None and config.rope_dim % 2:
        message = f"rope rotates pairs, but rope_dim = {config.rope_dim} is odd"
        yield Problem("E212", ("rope_dim",), message, "make rope_dim even")
    elif config.rope is not None:
        yield from rope.rules(config.rope, ("rope",), config.rope_dim)
    twice = [name for name in LINEARS if not isinstance(config.bias, bool) and config.bias.count(name) > 1]
    if twice:
        yield Problem("E227", ("bias",), f"bias lists {' and '.join(twice)} twice", "list each once")
    for rank in (config.q_rank, config.kv_rank) if isinstance(config.norm, Norm) else ():
        yield from norm.inner(config.norm, rank or config.kv_rank, "norm")
    largest = max(config.nope_dim + config.rope_dim, config.nope_dim + value_dim(config))
    inner = max(d_model, config.kv_rank, config.q_rank or 0)
    yield from too_large(("heads",), f"heads = {config.heads} of {largest}", config.heads * largest, inner)
    for key, rank in (("q_rank", config.q_rank or 0), ("kv_rank", config.kv_rank)):
        yield from too_large((key,), f"{key} = {rank}", rank, d_model)


def shrink(config: Mla, tp: int) -> Mla:
    """Small heads and latents, and a reach that a short sequence shows."""
    nope, turned = min(config.nope_dim, 6), min(config.rope_dim, 4)
    value = nope if value_dim(config) == config.nope_dim else min(value_dim(config), 5)
    return config.model_copy(
        update={
            "heads": fewer(config.heads, tp),
            "q_rank": config.q_rank and min(config.q_rank, SMALL_RANK),
            "kv_rank": min(config.kv_rank, SMALL_RANK - 2),
            "nope_dim": nope,
            "rope_dim": turned,
            "v_head_dim": value,
            "window": config.window and min(config.window, heads.SMALL_REACH),
            "rope": config.rope and rope.shrink(config.rope, config.rope_dim, turned),
        }
    )


def tables(config: Mla) -> tuple[Table, ...]:
    """Of rope and mask, where there are any."""
    rotary = () if config.rope is None else (rope.table(config.rope, config.rope_dim),)
    return (*rotary, *mask.table(Mask(causal=config.causal, window=config.window)))


def decided(config: Mla, role: str) -> dict[str, tuple[object, str]]:
    """Values that defaults decided, and how."""
    scale = (config.nope_dim + config.rope_dim) ** -0.5 if config.scale is None else config.scale
    return {
        "v_head_dim": (value_dim(config), "nope_dim"),
        "scale": (scale, "(nope_dim + rope_dim) ** -0.5"),
        "causal": (config.causal, f"in the {role}"),
    }


def results(config: Mla) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    queries = ("q",) if config.q_rank is None else ("q_a", "q_b")
    return (*queries, "kv_a", "kv_b", "core", *output_gate.results(config.output_gate), "o")


def lower(config: Mla, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    found = {table.name: given[table] for table in tables(config)}

    def joined(name: str, plain: Ref, turned: Ref) -> Ref:
        if config.rope is not None:
            turned = rope.turn(config.rope, b, turned, found["rope"], name, f"{name}_rope")
        return b.op("join", plain, turned, name=f"{name}_joined", hint=name)

    q = joined("q", *_queries(config, b, x, features))
    k_plain, k_turned, v = _keys(config, b, x, features)
    k = joined("k", k_plain, k_turned)
    seen = found.get("mask", given.get("own_mask"))
    inputs = (q, k, v) if seen is None else (q, k, v, seen)
    scale = heads.own_scale(config.scale, config.nope_dim + config.rope_dim)
    mixed = b.op("attention", *inputs, name="core", causal=False, scale=scale, dropout=config.dropout, grouped=False)
    inner = Axis.of(heads=config.heads, head_dim=value_dim(config))
    return output_gate.closed(b, x, mixed, features, inner, config.output_gate, config.has_bias("o"))


def _queries(config: Mla, b: Builder, x: Ref, features: Axis) -> tuple[Ref, Ref]:
    """What is not rotated [batch, heads, seq, nope_dim], and what is [batch, heads, seq, rope_dim]."""
    plain, turned = Axis("nope_dim", config.nope_dim), Axis("rope_dim", config.rope_dim)
    joint = Axis.of(heads=config.heads, head_dim=plain.length + turned.length)
    if config.q_rank is None:
        q = b.linear(x, "q", joint, features, config.has_bias("q"), hint="q")
    else:
        rank = Axis("q_rank", config.q_rank)
        q = b.linear(x, "q_a", rank, features, config.has_bias("q"), hint="q")
        q = norm.lower(config.norm, b, q, "q_a_norm", rank, "q") if isinstance(config.norm, Norm) else q
        q = b.linear(q, "q_b", joint, rank, False, hint="q")
    q = _scaled(b, b.op("split", q, name="q_heads", hint="q", heads=config.heads), config.q_scale, "q_scale", "q")
    parts = b.op("part", q, name="q_parts", hints=("q", "q_rope"), axes=(plain, turned))
    return parts, Ref(parts.op, 1)


def _keys(config: Mla, b: Builder, x: Ref, features: Axis) -> tuple[Ref, Ref, Ref]:
    """Keys, not rotated and to be rotated [batch, 1, seq, rope_dim], and values [batch, heads, seq, v_head_dim]."""
    rank, turned = Axis("kv_rank", config.kv_rank), Axis.of(**{"1": 1, "rope_dim": config.rope_dim})
    both = Axis("kv_rank+rope_dim", rank.length + turned.length)
    latent = b.linear(x, "kv_a", both, features, config.has_bias("kv"), hint="kv")
    latent = b.op("part", latent, name="kv_a_parts", hints=("kv", "k_rope"), axes=(rank, turned))
    shared = b.op("split", Ref(latent.op, 1), name="k_shared", hint="k_rope", heads=1)
    latent = norm.lower(config.norm, b, latent, "kv_a_norm", rank, "kv") if isinstance(config.norm, Norm) else latent
    latent = _scaled(b, latent, config.kv_scale, "kv_scale", "kv")
    plain, value = Axis("nope_dim", config.nope_dim), Axis("head_dim", value_dim(config))
    joint = Axis.of(heads=config.heads, head_dim=plain.length + value.length)
    kv = b.linear(latent, "kv_b", joint, rank, False, hint="kv")
    kv = b.op("split", kv, name="kv_heads", hint="kv", heads=config.heads)
    kv = b.op("part", kv, name="kv_parts", hints=("k", "v"), axes=(plain, value))
    return kv, shared, Ref(kv.op, 1)


def _scaled(b: Builder, x: Ref, factor: float | str, name: str, hint: str) -> Ref:
    return x if settled(factor) == 1.0 else b.op("scale", x, name=name, hint=hint, factor=settled(factor))


SYNONYMS: Synonyms = {
    "mla": ("latent_attention", "multi_head_latent_attention"),
    "heads": heads.SYNONYMS["heads"],
    "q_rank": ("q_lora_rank",),
    "kv_rank": ("kv_lora_rank",),
    "nope_dim": ("qk_nope_head_dim",),
    "rope_dim": ("qk_rope_head_dim",),
    "v_head_dim": heads.SYNONYMS["v_head_dim"],
    "scale": heads.SYNONYMS["scale"],
    "window": ("sliding_window",),
    **output_gate.SYNONYMS,
    **rope.SYNONYMS,
}

MLA = Component(
    "mla",
    Mla,
    "LatentAttention",
    lower,
    smallest={"heads": 1, "kv_rank": 1, "nope_dim": 1, "rope_dim": 2},
    shards=("heads",),
    grows=("heads", "q_rank", "kv_rank"),
    split_by_tp=lambda config: (("heads", config.heads),),
    spread=lambda config: (("heads", config.heads),),
    results=results,
    shrink=shrink,
    normed=lambda config, model: config.model_copy(update={"norm": norm.own(config.norm, model)}),
    reads=("own_mask",),
    tables=tables,
    resolve=resolve,
    rules=rules,
    decided=decided,
    by_length=lambda config: ("rope", "scaling", "kind") if rope.by_length(config.rope) else (),
    verb="attend",
    summary=lambda config: f"{plural(config.heads, 'head')} of a latent of {config.kv_rank}",
    synonyms=SYNONYMS,
)
