"""Real-gated linear recurrent unit, beside a gate (De et al. 2024)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specc.components import activation, convolution
from specc.components.activation import Activation
from specc.components.base import Component, Config, Dim, Given, Problem, Problems, choices, divisors, fewer, too_large
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class RgLru(Config):
    """Real-gated linear recurrent unit."""

    hidden: Dim | None = None
    """Channels. Default: d_model."""
    heads: Dim
    """Equal parts of the channels; gates of one are made of it alone."""
    conv: Dim = 4
    """Positions that the convolution reads."""
    activation: Activation = "gelu_tanh"
    """Of the gate beside it."""


def resolve(config: RgLru, d_model: int, role: str) -> RgLru:
    """With the channels filled in."""
    return config.model_copy(update={"hidden": config.hidden or d_model})


def hidden(config: RgLru) -> int:
    """Of a resolved config."""
    assert config.hidden is not None
    return config.hidden


def rules(config: RgLru, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Heads part the channels evenly."""
    if hidden(config) % config.heads:
        message = f"{plural(config.heads, 'head')} cannot part {hidden(config)} channels evenly"
        yield Problem("E295", ("heads",), message, f"heads can be {choices(divisors(hidden(config)))}")
    yield from too_large(("hidden",), f"hidden = {hidden(config)}", hidden(config), d_model)


def shrink(config: RgLru, tp: int) -> RgLru:
    """Few heads a rank, of a few channels."""
    heads = fewer(config.heads, tp)
    return config.model_copy(
        update={"heads": heads, "hidden": heads * min(hidden(config) // config.heads, 6), "conv": min(config.conv, 4)}
    )


def lower(config: RgLru, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    width = hidden(config) // config.heads
    channels = Axis.of(heads=config.heads, width=width)
    u = b.linear(x, "x", channels, features, True, hint="u")
    u = convolution.lower(b, u, "conv", channels, config.conv, True, given, "u")
    heads, rows, columns = Axis("heads", config.heads), Axis("width", width), Axis("out", width)
    gates: list[Ref] = []
    for name in ("i", "r"):
        start = b.weight_init(columns, rows, False)
        weight = b.param(name, "weight", (heads, rows, columns), start, "block_linear")
        bias = b.param(name, "bias", (heads, columns), Init("zeros"), "block_linear")
        gates.append(b.op("block_linear", u, name=name, hint=name, params=(weight, bias)))
    params = (b.param("a", "weight", (channels,), Init("slow_decay"), "per_channel"),)
    documents = (given["documents"],) if "documents" in given else ()
    h = b.op("gated_recurrence", u, *gates, *documents, name="scan", hint="h", params=params)
    y = b.linear(x, "y", channels, features, True, hint="y")
    h = b.op("mul", h, activation.lower(config.activation, b, y, "y_act", "y"), hint="h")
    return b.linear(h, "out", features, channels, True, last=True)


RG_LRU = Component(
    "rg_lru",
    RgLru,
    "RgLru",
    lower,
    smallest={"heads": 1},
    shards=("heads",),
    grows=("heads", "hidden"),
    split_by_tp=lambda config: (("heads", config.heads),),
    results=lambda config: ("x", "conv", "i", "r", "scan", "y", "y_act", "out"),
    shrink=shrink,
    reads=("documents",),
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {"hidden": (config.hidden, "d_model")},
    verb="mix",
    synonyms={"rg_lru": ("griffin", "hawk", "lru"), "hidden": ("lru_width",), "conv": ("conv1d_width",)},
)
