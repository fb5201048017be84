"""A short convolution between two gates (Liquid AI 2025, LFM2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specc.components import convolution
from specc.components.base import Component, Config, Dim, Given, Problems, too_large
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class ShortConv(Config):
    """A short convolution over positions, gated before and after: out(c * conv(b * x))."""

    hidden: Dim | None = None
    """Channels. Default: d_model."""
    conv: Dim = 3
    """Positions that it reads."""
    bias: bool = False
    """Biases of its linears and of the convolution."""


def resolve(config: ShortConv, d_model: int, role: str) -> ShortConv:
    """With the channels filled in."""
    return config.model_copy(update={"hidden": config.hidden or d_model})


def hidden(config: ShortConv) -> int:
    """Of a resolved config."""
    assert config.hidden is not None
    return config.hidden


def rules(config: ShortConv, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """Its linears are matrices that fit somewhere."""
    yield from too_large(("hidden",), f"hidden = {hidden(config)}", hidden(config), d_model)


def shrink(config: ShortConv, tp: int) -> ShortConv:
    """A few channels a rank."""
    few = min(hidden(config), 16 * tp)
    return config.model_copy(update={"hidden": few - few % tp or few, "conv": min(config.conv, 4)})


def lower(config: ShortConv, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    channels = Axis("channels", hidden(config))
    before = b.linear(x, "b", channels, features, config.bias, hint="b")
    u = b.op("mul", before, b.linear(x, "x", channels, features, config.bias, hint="u"), hint="u")
    u = convolution.lower(b, u, "conv", channels, config.conv, config.bias, given, "u")
    behind = b.linear(x, "c", channels, features, config.bias, hint="c")
    return b.linear(b.op("mul", u, behind), "out", features, channels, config.bias, last=True)


SHORT_CONV = Component(
    "short_conv",
    ShortConv,
    "ShortConv",
    lower,
    smallest={},
    shards=("channels",),
    grows=("hidden",),
    split_by_tp=lambda config: (("hidden", hidden(config)),),
    results=lambda config: ("b", "x", "conv", "c", "out"),
    shrink=shrink,
    reads=("documents",),
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {"hidden": (config.hidden, "d_model")},
    verb="mix",
    synonyms={"short_conv": ("conv", "lfm2_conv"), "conv": ("conv_L_cache", "d_conv", "conv_kernel", "kernel_size")},
)
