"""Feed-forward layers: two linears around an activation, or three with a gate (Shazeer 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from specc.components.base import Component, Config, Dim, Given, Problems, Rate, Synonyms, too_large
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


class Ffn(Config):
    """Feed-forward layer."""

    kind: Literal["plain", "gated"] = "plain"
    """`plain` is down(act(up(x))), `gated` is down(act(gate(x)) * up(x))."""
    hidden: Dim
    """Features between the linears."""
    activation: Activation = "silu"
    """The nonlinearity; gelu_tanh is the tanh approximation."""
    bias: bool = False
    """Biases on all linears."""
    dropout: Rate = 0.0
    """Rate on the hidden features."""


def rules(config: Ffn, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """The linears are matrices that fit somewhere."""
    yield from too_large(("hidden",), f"hidden = {config.hidden}", config.hidden, d_model)


def results(config: Ffn) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    return ("gate", "act", "up", "down") if config.kind == "gated" else ("up", "act", "down")


def shrink(config: Ffn, tp: int) -> Ffn:
    """A few features a rank."""
    hidden = min(config.hidden, 16 * tp)
    return config.model_copy(update={"hidden": hidden - hidden % tp})


def lower(config: Ffn, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [..., d_model] -> the same."""
    hidden = Axis("ffn", config.hidden)
    if config.kind == "gated":
        gate = b.linear(x, "gate", hidden, features, config.bias, hint="gate")
        gate = b.op("activation", gate, name="act", hint="gate", function=config.activation)
        x = b.op("mul", gate, b.linear(x, "up", hidden, features, config.bias, hint="up"))
    else:
        x = b.linear(x, "up", hidden, features, config.bias)
        x = b.op("activation", x, name="act", function=config.activation)
    if config.dropout:
        x = b.op("dropout", x, rate=config.dropout)
    return b.linear(x, "down", features, hidden, config.bias, last=True)


SYNONYMS: Synonyms = {
    "ffn": ("mlp", "feed_forward", "feedforward", "ff"),
    "hidden": ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "dim_feedforward", "hidden_dim"),
    "activation": ("act", "hidden_act", "activation_function", "act_fn", "hidden_activation"),
    "gated": ("swiglu", "geglu", "glu"),
    "silu": ("swish",),
    "gelu_tanh": ("gelu_new", "gelu_pytorch_tanh", "gelu_approx", "gelu_fast"),
}

FFN = Component(
    "ffn",
    Ffn,
    "FeedForward",
    lower,
    smallest={"hidden": 1},
    shards=("ffn",),
    split_by_tp=lambda config: (("hidden", config.hidden),),
    results=results,
    shrink=shrink,
    verb="feed",
    rules=rules,
    synonyms=SYNONYMS,
    variant=lambda config: "Gated" if config.kind == "gated" else "",
)
