"""What attention of every kind shares: query heads, key and value heads, and the linears around them."""

from __future__ import annotations

from math import gcd
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import AfterValidator, Tag

from specc.components import norm, output_gate, qk_norm
from specc.components.base import (
    Bound,
    Config,
    Dim,
    Problem,
    Problems,
    Rate,
    ScaleFormula,
    Synonyms,
    by_kind,
    choices,
    divisors,
    fewer,
    settled,
    too_large,
)
from specc.components.norm import Norm, OwnNorm
from specc.components.output_gate import OwnGate
from specc.components.qk_norm import OwnQkNorm, QkNorm
from specc.ir.op import Param, Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


PROJECTIONS = ("q", "k", "v", "o")
Projections = Annotated[list[Literal["q", "k", "v", "o"]], AfterValidator(tuple)]
SHARDS = ("heads", "kv_heads")
SMALLEST = {"heads": 1}
SYNONYMS: Synonyms = {
    "heads": ("num_attention_heads", "num_heads", "n_heads", "n_head", "nhead"),
    "kv_heads": ("num_key_value_heads", "num_kv_heads", "n_kv_heads", "num_query_groups", "n_kv_head", "kv_groups"),
    "head_dim": ("d_head", "head_size", "d_kv", "kv_channels"),
    "v_head_dim": ("value_head_dim", "d_v"),
    "scale": ("query_pre_attn_scalar", "attention_multiplier", "softmax_scale"),
    "softcap": ("logits_soft_cap", "attn_logit_softcapping", "logit_cap"),
    "sub_norm": ("attn_sub_norm",),
    **qk_norm.SYNONYMS,
    **output_gate.SYNONYMS,
}
SMALL_HEAD = 8  # features of a head in proofs
SMALL_REACH = 5  # tokens of a window or a chunk in proofs


class Heads(Config):
    """Sizes and linears of attention."""

    heads: Dim
    """Query heads."""
    kv_heads: Dim | None = None
    """Key and value heads, each shared by heads / kv_heads query heads. Default: heads."""
    head_dim: Dim | None = None
    """Features of a head. Default: d_model / heads."""
    v_head_dim: Dim | None = None
    """Features of a value head. Default: head_dim."""
    bias: Annotated[Annotated[bool, Tag("bool")] | Annotated[Projections, Tag("list")], by_kind] = False
    """Which projections have a bias: all, none, or those listed."""
    scale: ScaleFormula | None = None
    """Factor on the scores. Default: 1 / sqrt(head_dim)."""
    dropout: Rate = 0.0
    """Rate on the attention weights."""
    softcap: Bound | None = None
    """Scores are softcap * tanh(scores / softcap)."""
    qk_norm: OwnQkNorm = False
    """A norm on queries and keys."""
    output_gate: OwnGate = False
    """The result is multiplied by an activation of a linear of the input."""
    sub_norm: OwnNorm = False
    """A norm before o."""

    def has_bias(self, projection: str) -> bool:
        return self.bias if isinstance(self.bias, bool) else projection in self.bias


AnyHeads = TypeVar("AnyHeads", bound=Heads)


def resolved(config: AnyHeads, d_model: int) -> AnyHeads:
    """With sizes filled in (rounded down where d_model does not divide: a rule reports that)."""
    head_dim = config.head_dim or max(1, d_model // config.heads)
    return config.model_copy(
        update={
            "kv_heads": config.kv_heads or config.heads,
            "head_dim": head_dim,
            "v_head_dim": config.v_head_dim or head_dim,
            "output_gate": output_gate.own(config.output_gate),
        }
    )


def normed(config: AnyHeads, model: Norm) -> AnyHeads:
    """With its norms, given the model's."""
    norms = {"qk_norm": qk_norm.own(config.qk_norm, model), "sub_norm": norm.own(config.sub_norm, model)}
    return config.model_copy(update=norms)


def sizes(config: Heads) -> tuple[int, int]:
    """kv_heads and head_dim of a resolved config."""
    assert config.kv_heads is not None and config.head_dim is not None, "defaults are filled in first"
    return config.kv_heads, config.head_dim


def value_dim(config: Heads) -> int:
    """v_head_dim of a resolved config."""
    assert config.v_head_dim is not None, "defaults are filled in first"
    return config.v_head_dim


def rules(config: Heads, d_model: int, stated: bool, rotated: bool = False) -> Problems:
    """What must hold of a resolved config; `stated`: the spec gives head_dim itself; `rotated`: there is a rope."""
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
    if isinstance(config.qk_norm, QkNorm):
        yield from qk_norm.rules(config.qk_norm, rotated)
        for count in (config.heads, kv_heads) if config.qk_norm.over == "width" else (1,):
            yield from norm.inner(config.qk_norm, count * sizes(config)[1], "qk_norm")
    yield from norm.inner(config.sub_norm, config.heads * value_dim(config), "sub_norm")


def size_rule(config: Heads, d_model: int) -> Problems:
    """The linears are matrices that fit somewhere."""
    largest = max(sizes(config)[1], value_dim(config))
    yield from too_large(("heads",), f"heads = {config.heads} of {largest}", config.heads * largest, d_model)


def split_by_tp(config: Heads) -> tuple[tuple[str, int], ...]:
    """What tp must divide. Of kv_heads each rank takes those that its heads read."""
    return (("heads", config.heads),)


def spread(config: Heads) -> tuple[tuple[str, int], ...]:
    """What ranks share out that exchange parts of rows for heads."""
    return (("heads", config.heads), ("kv_heads", sizes(config)[0]))


def results(config: Heads) -> tuple[str, ...]:
    """Results that checkpointing can keep. What is no kernel has no result of its own."""
    core = () if written_out(config) else ("core",)
    return ("q", "k", "v", *core, *output_gate.results(config.output_gate), "o")


def written_out(config: Heads) -> bool:
    """Whether torch's kernels for attention cannot compute it."""
    return config.softcap is not None


def shrink(config: AnyHeads, tp: int) -> AnyHeads:
    """Grouping of heads stays, and several on a rank are two."""
    kv_heads, head_dim = sizes(config)
    few = fewer(kv_heads, tp)
    least = 1 if config.heads % tp else tp // gcd(few, tp)  # that a rank must have of each
    shared = config.heads // kv_heads // least
    heads = few * least * (shared if shared <= 4 else next(n for n in (4, 3, 2, 5, 7, shared) if shared % n == 0))
    small = min(head_dim, SMALL_HEAD)
    value = small if value_dim(config) == head_dim else min(value_dim(config), SMALL_HEAD - 2)
    return config.model_copy(update={"heads": heads, "kv_heads": few, "head_dim": small, "v_head_dim": value})


def decided(config: Heads) -> dict[str, tuple[object, str]]:
    """Values that defaults decided, and how."""
    kv_heads, head_dim = sizes(config)
    scale = head_dim**-0.5 if config.scale is None else config.scale
    return {
        "kv_heads": (kv_heads, "heads"),
        "head_dim": (head_dim, "d_model / heads"),
        "v_head_dim": (value_dim(config), "head_dim"),
        "scale": (scale, "head_dim ** -0.5"),
    }


def summary(config: Heads) -> str:
    """`8 heads`, or `8 heads over 2 kv_heads`."""
    kv_heads, _ = sizes(config)
    return plural(config.heads, "head") + (f" over {plural(kv_heads, 'kv_head')}" if kv_heads != config.heads else "")


def axes(config: Heads, name: str) -> tuple[Axis, Axis]:
    """Heads, and features of one, of q, k or v."""
    kv_heads, head_dim = sizes(config)
    axis, count = ("heads", config.heads) if name == "q" else ("kv_heads", kv_heads)
    return Axis(axis, count), Axis("head_dim", value_dim(config) if name == "v" else head_dim)


def joint(config: Heads, name: str) -> Axis:
    """Both as one axis."""
    count, features = axes(config, name)
    return Axis.of(**{count.name: count.length, features.name: features.length})


def flat(config: Heads, b: Builder, x: Ref, name: str, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> q, k or v [batch, seq, heads*head_dim]."""
    return b.linear(x, name, joint(config, name), features, config.has_bias(name), hint=name)


def split(config: Heads, b: Builder, x: Ref, name: str) -> Ref:
    """q, k or v [batch, seq, heads*head_dim] -> [batch, heads, seq, head_dim]."""
    return b.op("split", x, name=f"{name}_heads", hint=name, heads=axes(config, name)[0].length)


def own_scale(scale: float | str | None, width: int) -> float | None:
    """Of scores of so many features; None where it is width ** -0.5, stated or not, as kernels have it."""
    return None if scale is None or settled(scale) == width**-0.5 else settled(scale)


def attended(config: Heads, b: Builder, q: Ref, k: Ref, v: Ref, mask: Ref | None, sinks: tuple[Param, ...] = ()) -> Ref:
    """Of heads, what they attend to [batch, heads, seq, v_head_dim]."""
    inputs = (q, k, v) if mask is None else (q, k, v, mask)
    scale, dropout = own_scale(config.scale, sizes(config)[1]), config.dropout
    if written_out(config) or sinks:
        scale, capped = sizes(config)[1] ** -0.5 if scale is None else scale, config.softcap
        return b.op("plain_attention", *inputs, name="core", params=sinks, scale=scale, softcap=capped, dropout=dropout)
    grouped = config.heads != sizes(config)[0]
    return b.op("attention", *inputs, name="core", causal=False, scale=scale, dropout=dropout, grouped=grouped)


def finished(config: Heads, b: Builder, x: Ref, mixed: Ref, features: Axis) -> Ref:
    """x [batch, seq, d_model], what its heads attend to -> [batch, seq, d_model]."""
    inner, gate = Axis.of(heads=config.heads, head_dim=value_dim(config)), config.output_gate
    return output_gate.closed(b, x, mixed, features, inner, gate, config.has_bias("o"), config.sub_norm)
