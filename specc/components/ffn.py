"""Feed-forward layers: two linears around an activation, or three with a gate (Shazeer 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, Tag

from specc.components import activation, norm
from specc.components.activation import Activation
from specc.components.base import (
    Bound,
    Component,
    Config,
    Dim,
    Factor,
    Given,
    Problem,
    Problems,
    Rate,
    Synonyms,
    by_kind,
    too_large,
)
from specc.components.norm import Norm, OwnNorm
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

LINEARS = ("gate", "up", "down")
Linears = Annotated[list[Literal["gate", "up", "down"]], AfterValidator(tuple)]


class Ffn(Config):
    """Feed-forward layer."""

    kind: Literal["plain", "gated"] = "plain"
    """`plain` is down(act(up(x))), `gated` is down(act(gate(x)) * up(x))."""
    hidden: Dim
    """Features between the linears."""
    activation: Activation | None = None
    """The nonlinearity; gelu_tanh is the tanh approximation. Default: `silu` for gated, `gelu` for plain."""
    bias: Annotated[Annotated[bool, Tag("bool")] | Annotated[Linears, Tag("list")], by_kind] = False
    """Which linears have a bias: all, none, or those listed."""
    dropout: Rate = 0.0
    """Rate on the hidden features."""
    clamp: Bound | None = None
    """Of gated: gate is at most this before the activation, up between its negative and this."""
    up_offset: Factor = 0.0
    """Of gated: added to up."""
    gate_scale: Factor = 1.0
    """Of gated: factor on gate before the activation."""
    sub_norm: OwnNorm = False
    """A norm before down."""

    def has_bias(self, linear: str) -> bool:
        return self.bias if isinstance(self.bias, bool) else linear in self.bias


def resolve(config: Ffn, d_model: int, role: str) -> Ffn:
    """With the activation filled in."""
    return config.model_copy(update={"activation": function(config)})


def function(config: Ffn) -> Activation:
    """The activation, stated or not."""
    return config.activation or ("silu" if config.kind == "gated" else "gelu")


def rules(config: Ffn, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """The linears are matrices that fit somewhere; what a gate needs has one."""
    yield from too_large(("hidden",), f"hidden = {config.hidden}", config.hidden, d_model)
    yield from norm.inner(config.sub_norm, config.hidden, "sub_norm")
    listed = () if isinstance(config.bias, bool) else config.bias
    if twice := [name for name in LINEARS if listed.count(name) > 1]:
        yield Problem("E227", ("bias",), f"bias lists {' and '.join(twice)} twice", "list each once")
    if config.kind == "plain":
        for key in ("clamp", "up_offset", "gate_scale"):
            if stated(key) and getattr(config, key) != Ffn.model_fields[key].default:
                yield Problem("E250", (key,), f"{key} is of gated layers, this one is plain", "give kind: gated")
        if "gate" in listed:
            at = ("bias", listed.index("gate"))
            yield Problem("E250", at, "a plain layer has no gate", "give kind: gated, or list up and down")


def results(config: Ffn) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    return ("gate", "act", "up", "down") if config.kind == "gated" else ("up", "act", "down")


def shrink(config: Ffn, tp: int) -> Ffn:
    """A few features a rank."""
    hidden = min(config.hidden, 16 * tp)
    return config.model_copy(update={"hidden": hidden - hidden % tp})


def normed(config: Ffn, model: Norm) -> Ffn:
    """With its norm, given the model's."""
    return config.model_copy(update={"sub_norm": norm.own(config.sub_norm, model)})


def lower(config: Ffn, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [..., d_model] -> the same."""
    hidden = Axis("ffn", config.hidden)
    if config.kind == "gated":
        gate = b.linear(x, "gate", hidden, features, config.has_bias("gate"), hint="gate")
        if config.clamp is not None:
            gate = b.op("clamp", gate, name="gate_clamp", hint="gate", low=None, high=config.clamp)
        if config.gate_scale != 1.0:
            gate = b.op("scale", gate, name="gate_scale", hint="gate", factor=config.gate_scale)
        gate = activation.lower(function(config), b, gate, "act", "gate")
        up = b.linear(x, "up", hidden, features, config.has_bias("up"), hint="up")
        if config.clamp is not None:
            up = b.op("clamp", up, name="up_clamp", hint="up", low=-config.clamp, high=config.clamp)
        if config.up_offset:
            up = b.op("shift", up, name="up_offset", hint="up", by=config.up_offset)
        x = b.op("mul", gate, up)
    else:
        x = b.linear(x, "up", hidden, features, config.has_bias("up"))
        x = activation.lower(function(config), b, x, "act")
    if config.dropout:
        x = b.op("dropout", x, rate=config.dropout)
    if isinstance(config.sub_norm, Norm):
        x = norm.lower(config.sub_norm, b, x, "sub_norm", hidden)
    return b.linear(x, "down", features, hidden, config.has_bias("down"), last=True)


SYNONYMS: Synonyms = {
    "ffn": ("mlp", "feed_forward", "feedforward", "ff"),
    "hidden": ("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "dim_feedforward", "hidden_dim"),
    "gated": ("swiglu", "geglu", "glu"),
    "clamp": ("swiglu_limit",),
    "sub_norm": ("ffn_sub_norm",),
    **activation.SYNONYMS,
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
    normed=normed,
    verb="feed",
    resolve=resolve,
    rules=rules,
    decided=lambda config, role: {"activation": (config.activation, "silu for gated, gelu for plain")},
    synonyms=SYNONYMS,
    variant=lambda config: "Gated" if config.kind == "gated" else "",
)
