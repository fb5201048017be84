"""A component that specc does not have, as one module: `python -m tests.toy` is specc with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from specc import components
from specc.components.base import Component, Config, Dim, Given, Problem, Problems
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Bottleneck(Config):
    """A narrow layer between two linears (Houlsby et al. 2019)."""

    width: Dim | None = None
    """Features between the linears. Default: d_model / 4."""


def resolve(config: Bottleneck, d_model: int, role: str) -> Bottleneck:
    """With the width filled in."""
    return config.model_copy(update={"width": config.width or max(1, d_model // 4)})


def width(config: Bottleneck) -> int:
    """Of a resolved config."""
    assert config.width is not None
    return config.width


def rules(config: Bottleneck, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """A bottleneck is narrow."""
    if width(config) >= d_model:
        message = f"width = {width(config)} is no bottleneck of d_model = {d_model}"
        yield Problem("E290", ("width",), message, f"at most {d_model - 1}")


def lower(config: Bottleneck, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    narrow = Axis("width", width(config))
    x = b.linear(x, "down", narrow, features, bias=True)
    x = b.op("activation", x, name="act", function="gelu")
    return b.linear(x, "up", features, narrow, bias=True, last=True)


BOTTLENECK = Component(
    "bottleneck",
    Bottleneck,
    "Bottleneck",
    lower,
    smallest={"width": 1},
    shards=("width",),
    split_by_tp=lambda config: (("width", width(config)),),
    results=lambda config: ("down", "act", "up"),
    shrink=lambda config, tp: config.model_copy(update={"width": 4 * tp}),
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {"width": (config.width, "d_model / 4")},
)

if __name__ == "__main__":
    components.COMPONENTS = (*components.COMPONENTS, BOTTLENECK)  # before the language is made of them

    from specc.cli import main

    main()
