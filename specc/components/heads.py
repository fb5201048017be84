"""What attention of every kind shares: query heads, key and value heads, and the linears around them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AfterValidator, Tag

from specc.components.base import (
    Config,
    Dim,
    Problem,
    Problems,
    Rate,
    Scale,
    Synonyms,
    by_kind,
    choices,
    divisors,
    too_large,
)
from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


PROJECTIONS = ("q", "k", "v", "o")
Projections = Annotated[list[Literal["q", "k", "v", "o"]], AfterValidator(tuple)]
SHARDS = ("heads", "kv_heads")
SMALLEST = {"heads": 1}
RESULTS = ("q", "k", "v", "core", "o")
SYNONYMS: Synonyms = {
    "heads": ("num_attention_heads", "num_heads", "n_heads", "n_head", "nhead"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "num_query_groups", "n_kv_head", "kv_groups"),
    "head_dim": ("d_head", "head_size", "d_kv", "kv_channels"),
}
SMALL_HEAD = 8  # features of a head in proofs


class Heads(Config):
    """Sizes and linears of attention."""

    heads: Dim
    """Query heads."""
    kv_heads: Dim | None = None
    """Key and value heads, each shared by heads / kv_heads query heads. Default: heads."""
    head_dim: Dim | None = None
    """Features of a head. Default: d_model / heads."""
    bias: Annotated[Annotated[bool, Tag("bool")] | Annotated[Projections, Tag("list")], by_kind] = False
    """Which projections have a bias: all, none, or those listed."""
    scale: Scale | None = None
    """Factor on the scores. Default: 1 / sqrt(head_dim)."""
    dropout: Rate = 0.0
    """Rate on the attention weights."""

    def has_bias(self, projection: str) -> bool:
        return self.bias if isinstance(self.bias, bool) else projection in self.bias


AnyHeads = TypeVar("AnyHeads", bound=Heads)


def resolved(config: AnyHeads, d_model: int) -> AnyHeads:
    """With kv_heads and head_dim filled in (rounded down where d_model does not divide: a rule reports that)."""
    return config.model_copy(
        update={
            "kv_heads": config.kv_heads or config.heads,
            "head_dim": config.head_dim or max(1, d_model // config.heads),
        }
    )


def sizes(config: Heads) -> tuple[int, int]:
    """kv_heads and head_dim of a resolved config."""
    assert config.kv_heads is not None and config.head_dim is not None, "defaults are filled in first"
    return config.kv_heads, config.head_dim


def rules(config: Heads, d_model: int, stated: bool) -> Problems:
    """What must hold of a resolved config; `stated`: the spec gives head_dim itself."""
    kv_heads, _ = sizes(config)
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


def size_rule(config: Heads, d_model: int) -> Problems:
    """The linears are matrices that fit somewhere."""
    _, head_dim = sizes(config)
    yield from too_large(("heads",), f"heads = {config.heads} of {head_dim}", config.heads * head_dim, d_model)


def split_by_tp(config: Heads) -> tuple[tuple[str, int], ...]:
    """What tp must divide."""
    kv_heads, _ = sizes(config)
    shared = config.heads % kv_heads == 0  # else a rule has told
    return (("heads", config.heads), ("kv_heads", kv_heads)) if shared else (("heads", config.heads),)


def results(config: Heads) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    return RESULTS


def shrink(config: AnyHeads, tp: int) -> AnyHeads:
    """Grouping of heads stays, and several on a rank are two."""
    kv_heads, head_dim = sizes(config)
    few = tp * min(kv_heads // tp, 2)
    shared = config.heads // kv_heads
    heads = few * (shared if shared <= 4 else next(n for n in (4, 3, 2, 5, 7, shared) if shared % n == 0))
    return config.model_copy(update={"heads": heads, "kv_heads": few, "head_dim": min(head_dim, SMALL_HEAD)})


def decided(config: Heads) -> dict[str, tuple[object, str]]:
    """Values that defaults decided, and how."""
    kv_heads, head_dim = sizes(config)
    scale = head_dim**-0.5 if config.scale is None else config.scale
    return {
        "kv_heads": (kv_heads, "heads"),
        "head_dim": (head_dim, "d_model / heads"),
        "scale": (scale, "head_dim ** -0.5"),
    }


def summary(config: Heads) -> str:
    """`8 heads`, or `8 heads over 2 kv_heads`."""
    kv_heads, _ = sizes(config)
    return plural(config.heads, "head") + (f" over {plural(kv_heads, 'kv_head')}" if kv_heads != config.heads else "")


def lower(
    config: Heads,
    b: Builder,
    x: Ref,
    memory: Ref,
    mask: Ref | None,
    rope: Ref | None,
    features: Axis,
) -> Ref:
    """x [batch, seq, d_model], keys and values from memory (x itself in self-attention) -> [batch, seq, d_model]."""
    heads = config.heads
    kv_heads, head_dim = sizes(config)
    values: list[Ref] = []
    for name, source, axis, count in (
        ("q", x, "heads", heads),
        ("k", memory, "kv_heads", kv_heads),
        ("v", memory, "kv_heads", kv_heads),
    ):
        joint = Axis.of(**{axis: count, "head_dim": head_dim})
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
        causal=False,
        scale=config.scale,
        dropout=config.dropout,
        grouped=heads != kv_heads,
    )
    x = b.op("merge", x)
    return b.linear(x, "o", features, Axis.of(heads=heads, head_dim=head_dim), config.has_bias("o"), last=True)
