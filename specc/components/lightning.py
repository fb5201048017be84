"""Linear attention whose states decay by a fixed rate (Qin et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specc.components import norm, output_gate
from specc.components.base import (
    Component,
    Config,
    Dim,
    Formula,
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
from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Lightning(Config):
    """Linear attention with fixed decay."""

    heads: Dim
    """Heads, each with a state."""
    head_dim: Dim | None = None
    """Features of a head. Default: d_model / heads."""
    decay: Formula = 1.0
    """Factor on the rates of heads, which are 2 ** (-8 * n / heads) for the n-th."""
    norm: OwnNorm = True
    """A norm over all heads before the gate."""
    output_gate: OwnGate = True
    """The result is multiplied by an activation of a linear of the input."""


def resolve(config: Lightning, d_model: int, role: str) -> Lightning:
    """With sizes and the gate filled in (rounded down where d_model does not divide: a rule reports that)."""
    head_dim = config.head_dim or max(1, d_model // config.heads)
    return config.model_copy(update={"head_dim": head_dim, "output_gate": output_gate.own(config.output_gate)})


def width(config: Lightning) -> int:
    """head_dim of a resolved config."""
    assert config.head_dim is not None
    return config.head_dim


def normed(config: Lightning, model: Norm) -> Lightning:
    """With its norm, given the model's."""
    return config.model_copy(update={"norm": norm.own(config.norm, model)})


def rules(config: Lightning, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """States decay, and heads are of whole features."""
    if not stated("head_dim") and d_model % config.heads:
        message = f"d_model = {d_model} cannot be split into {plural(config.heads, 'head')}"
        help = f"give head_dim, or heads that divide it: {choices(divisors(d_model))}"
        yield Problem("E210", ("heads",), message, help)
    if not isinstance(config.decay, str) and config.decay < 0:
        message = f"states grow with decay = {config.decay:g}"
        yield Problem("E296", ("decay",), message, "give a factor that is not below 0")
    yield from norm.inner(config.norm, config.heads * width(config), "norm")
    count = config.heads * width(config)
    yield from too_large(("heads",), f"heads = {config.heads} of {width(config)}", count, d_model)


def shrink(config: Lightning, tp: int) -> Lightning:
    """Few heads a rank."""
    return config.model_copy(update={"heads": fewer(config.heads, tp), "head_dim": min(width(config), 6)})


def lower(config: Lightning, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    inner = Axis.of(heads=config.heads, head_dim=width(config))
    values = Axis.of(heads=config.heads, v_head_dim=width(config))

    def made(name: str, axis: Axis) -> Ref:
        flat = b.linear(x, name, axis, features, False, hint=name)
        flat = b.op("activation", flat, name=f"{name}_act", hint=name, function="silu")
        return b.op("split", flat, name=f"{name}_heads", hint=name, heads=config.heads)

    q, k, v = made("q", inner), made("k", inner), made("v", values)
    rates = b.op("head_rates", x, name="rates", hint="rates", heads=config.heads, factor=float(config.decay))
    documents = (given["documents"],) if "documents" in given else ()
    y = b.op("merge", b.op("linear_attention", q, k, v, rates, *documents, name="scan", hint="y"), hint="y")
    if isinstance(config.norm, Norm):
        y = norm.lower(config.norm, b, y, "norm", values, "y")
    gate = config.output_gate
    if isinstance(gate, OutputGate) and gate.per == "channel":
        y = b.op("mul", y, output_gate.lower(gate, b, x, features, config.heads, width(config)), hint="y")
    elif isinstance(gate, OutputGate):
        y = b.op("split", y, name="normed_heads", hint="y", heads=config.heads)
        y = b.op("mul", y, output_gate.lower(gate, b, x, features, config.heads, width(config)), hint="y")
        y = b.op("merge", y, name="gated", hint="y")
    return b.linear(y, "o", features, values, False, last=True)


SYNONYMS: Synonyms = {
    "lightning": ("retention", "lightning_attention", "retnet"),
    "decay": ("slope_rate",),
    **output_gate.SYNONYMS,
}

LIGHTNING = Component(
    "lightning",
    Lightning,
    "LightningAttention",
    lower,
    smallest={"heads": 1},
    shards=("heads",),
    grows=("heads",),
    split_by_tp=lambda config: (("heads", config.heads),),
    results=lambda config: (
        *(f"{name}{part}" for name in "qkv" for part in ("", "_act")),
        *("rates", "scan"),
        *output_gate.results(config.output_gate),
        "o",
    ),
    shrink=shrink,
    normed=normed,
    reads=("documents",),
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {"head_dim": (config.head_dim, "d_model / heads")},
    verb="mix",
    summary=lambda config: plural(config.heads, "head"),
    synonyms=SYNONYMS,
)
