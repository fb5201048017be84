"""Feed-forward layers: two linears around an activation, or three with a gate (Shazeer 2020)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from specc.components.base import Config, Dim, Rate
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


def split_by_tp(config: Ffn) -> tuple[tuple[str, int], ...]:
    """What tp must divide: keys and numbers."""
    return (("hidden", config.hidden),)


def lower(config: Ffn, b: Builder, x: Ref, features: Axis) -> Ref:
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
