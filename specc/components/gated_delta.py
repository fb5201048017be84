"""The gated delta rule (Yang et al. 2024): what a key reads of a state is replaced; by channel KDA (Kimi 2025)."""

from __future__ import annotations

from collections.abc import Callable
from math import gcd
from typing import TYPE_CHECKING, Literal

from specc.components import convolution, norm, output_gate
from specc.components.base import (
    Component,
    Config,
    Dim,
    Factor,
    Given,
    Problem,
    Problems,
    Synonyms,
    choices,
    divisors,
    fewer,
    too_large,
)
from specc.components.norm import Norm, OwnNorm
from specc.components.output_gate import OutputGate, OwnGate
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class GatedDelta(Config):
    """Gated delta rule; with a decay for each channel it is KDA."""

    heads: Dim
    """Value heads, each with a state."""
    qk_heads: Dim | None = None
    """Query and key heads, each shared by heads / qk_heads value heads. Default: heads."""
    head_dim: Dim = 128
    """Features of a query or key."""
    v_head_dim: Dim | None = None
    """Features of a value. Default: head_dim."""
    conv: Dim = 4
    """Positions that the convolution reads."""
    decay: Literal["head", "channel"] = "head"
    """One decay for each head, or one for each of its channels."""
    decay_rank: Dim | None = None
    """Two linears of this rank make the decay."""
    beta_scale: Factor = 1.0
    """How much a key may replace; with 2 it may turn what it reads around."""
    norm: OwnNorm = True
    """A norm on each head before the gate."""
    output_gate: OwnGate = True
    """The result is multiplied by an activation of a linear of the input, by default silu."""


def resolve(config: GatedDelta, d_model: int, role: str) -> GatedDelta:
    """With sizes and the gate filled in."""
    gate = output_gate.own(config.output_gate)
    if isinstance(gate, OutputGate) and "activation" not in gate.model_fields_set:
        gate = gate.model_copy(update={"activation": "silu"})
    sizes = {"qk_heads": config.qk_heads or config.heads, "v_head_dim": config.v_head_dim or config.head_dim}
    return config.model_copy(update={**sizes, "output_gate": gate})


def sizes(config: GatedDelta) -> tuple[int, int]:
    """qk_heads and v_head_dim of a resolved config."""
    assert config.qk_heads is not None and config.v_head_dim is not None, "defaults are filled in first"
    return config.qk_heads, config.v_head_dim


def normed(config: GatedDelta, model: Norm) -> GatedDelta:
    """With its norm, given the model's."""
    return config.model_copy(update={"norm": norm.own(config.norm, model)})


def rules(config: GatedDelta, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Heads are shared evenly."""
    qk_heads, v_head_dim = sizes(config)
    if config.heads % qk_heads:
        message = f"{plural(config.heads, 'head')} cannot share {plural(qk_heads, 'qk_head')} evenly"
        yield Problem("E294", ("qk_heads",), message, f"qk_heads can be {choices(divisors(config.heads))}")
    yield from norm.inner(config.norm, v_head_dim, "norm")
    largest = max(config.head_dim, v_head_dim)
    yield from too_large(("heads",), f"heads = {config.heads} of {largest}", config.heads * largest, d_model)


def shrink(config: GatedDelta, tp: int) -> GatedDelta:
    """Few heads a rank, as many of them share one of queries and keys."""
    qk_heads, v_head_dim = sizes(config)
    few = fewer(qk_heads, tp)
    least = 1 if config.heads % tp else tp // gcd(few, tp)  # that a rank must have of each
    shared = min(config.heads // qk_heads // least, 3)
    small = {"head_dim": min(config.head_dim, 8), "v_head_dim": min(v_head_dim, 6), "conv": min(config.conv, 4)}
    return config.model_copy(update={"qk_heads": few, "heads": few * least * shared, **small})


def split_by_tp(config: GatedDelta) -> tuple[tuple[str, int], ...]:
    """What tp must divide. Of qk_heads each rank takes those that its heads read."""
    return (("heads", config.heads),)


def results(config: GatedDelta) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    mixed = [f"{name}{part}" for name in "qkv" for part in ("", "_conv", "_act")]
    decay = ("a_a", "a_b") if config.decay_rank else ("a",)
    return (*mixed, *decay, "b", "b_act", "scan", *output_gate.results(config.output_gate), "o")


def lower(config: GatedDelta, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    qk_heads, v_head_dim = sizes(config)
    shared = Axis.of(qk_heads=qk_heads, head_dim=config.head_dim)
    inner = Axis.of(heads=config.heads, v_head_dim=v_head_dim)

    def mixed(name: str, axis: Axis) -> Ref:
        made = b.linear(x, name, axis, features, False, hint=name)
        made = convolution.lower(b, made, f"{name}_conv", axis, config.conv, False, given, name)
        made = b.op("activation", made, name=f"{name}_act", hint=name, function="silu")
        return b.op("split", made, name=f"{name}_heads", hint=name, heads=axis.factors[0][1])

    q, k, v = mixed("q", shared), mixed("k", shared), mixed("v", inner)
    heads = Axis("heads", config.heads)
    decays = heads if config.decay == "head" else Axis.of(heads=config.heads, head_dim=config.head_dim)
    if config.decay_rank is None:
        a = b.linear(x, "a", decays, features, False, hint="a")
    else:
        rank = Axis("rank", config.decay_rank)
        a = b.linear(b.linear(x, "a_a", rank, features, False, hint="a"), "a_b", decays, rank, False, hint="a")
    beta = b.linear(x, "b", heads, features, False, hint="beta")
    beta = b.op("activation", beta, name="b_act", hint="beta", function="sigmoid")
    if config.beta_scale != 1.0:
        beta = b.op("scale", beta, name="b_scale", hint="beta", factor=config.beta_scale)
    params = (
        b.param("a_log", "weight", (heads,), Init("log_rows"), "per_head"),
        b.param("dt_bias", "weight", (decays,), Init("small_steps"), "per_head"),
    )
    documents = (given["documents"],) if "documents" in given else ()
    y = b.op("delta_rule", q, k, v, a, beta, *documents, name="scan", hint="y", params=params)
    if isinstance(config.norm, Norm):
        y = norm.lower(config.norm, b, y, "norm", Axis("v_head_dim", v_head_dim), "y")
    gate = config.output_gate
    if isinstance(gate, OutputGate):
        by_head = gate.per == "head"
        y = y if by_head else b.op("merge", y, hint="y")
        y = b.op("mul", y, output_gate.lower(gate, b, x, features, config.heads, v_head_dim), hint="y")
        y = b.op("merge", y, hint="y") if by_head else y
    else:
        y = b.op("merge", y, hint="y")
    return b.linear(y, "o", features, inner, False, last=True)


SYNONYMS: Synonyms = {
    "gated_delta": ("deltanet", "linear_attention", "gdn", "gated_deltanet"),
    "qk_heads": ("linear_num_key_heads",),
    "channel": ("kda",),
    **output_gate.SYNONYMS,
}

GATED_DELTA = Component(
    "gated_delta",
    GatedDelta,
    "GatedDelta",
    lower,
    smallest={"heads": 1},
    shards=("heads", "qk_heads"),
    grows=("heads", "qk_heads"),
    split_by_tp=split_by_tp,
    results=results,
    shrink=shrink,
    normed=normed,
    reads=("documents",),
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {
        "qk_heads": (config.qk_heads, "heads"),
        "v_head_dim": (config.v_head_dim, "head_dim"),
    },
    verb="mix",
    summary=lambda config: plural(config.heads, "head"),
    synonyms=SYNONYMS,
)
