"""Feed-forward layers: two linears around an activation, or three with a gate (Shazeer 2020)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Literal, Protocol, TypeVar

from pydantic import AfterValidator, Tag

from specc.components import activation, norm
from specc.components.activation import Activation
from specc.components.base import (
    Bound,
    Component,
    Config,
    Dim,
    Factor,
    Formula,
    Given,
    Problem,
    Problems,
    Rate,
    Synonyms,
    by_kind,
    settled,
    too_large,
)
from specc.components.norm import Norm, OwnNorm
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

LINEARS = ("gate", "up", "down")
Linears = Annotated[list[Literal["gate", "up", "down"]], AfterValidator(tuple)]


class Linear(Protocol):
    """Appends a linear: `Builder.linear`, or one of its kind."""

    def __call__(
        self, x: Ref, name: str, out: Axis, inner: Axis, bias: bool, hint: str = "x", last: bool = False
    ) -> Ref: ...


class Layer(Config):
    """What every feed-forward layer has."""

    kind: Literal["plain", "gated"] = "plain"
    """`plain` is down(act(up(x))), `gated` is down(act(gate(x)) * up(x))."""
    hidden: Dim
    """Features between the linears."""
    activation: Activation | None = None
    """The nonlinearity; gelu_tanh is the tanh approximation. Default: `silu` for gated, `gelu` for plain."""
    bias: Annotated[Annotated[bool, Tag("bool")] | Annotated[Linears, Tag("list")], by_kind] = False
    """Which linears have a bias: all, none, or those listed."""
    clamp: Bound | None = None
    """Of gated: gate is at most this before the activation, up between its negative and this."""
    up_offset: Factor = 0.0
    """Of gated: added to up."""

    def has_bias(self, linear: str) -> bool:
        return self.bias if isinstance(self.bias, bool) else linear in self.bias


class Ffn(Layer):
    """Feed-forward layer."""

    dropout: Rate = 0.0
    """Rate on the hidden features."""
    gate_scale: Formula = 1.0
    """Of gated: factor on gate before the activation."""
    sub_norm: OwnNorm = False
    """A norm before down."""


L = TypeVar("L", bound=Layer)


def resolve(config: L, d_model: int, role: str) -> L:
    """With the activation filled in."""
    return config.model_copy(update={"activation": function(config)})


def function(config: Layer) -> Activation:
    """The activation, stated or not."""
    return config.activation or ("silu" if config.kind == "gated" else "gelu")


def rules(config: Ffn, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """The linears are matrices that fit somewhere; what a gate needs has one."""
    yield from layer_rules(config, d_model, stated, ("clamp", "up_offset", "gate_scale"))
    yield from norm.inner(config.sub_norm, config.hidden, "sub_norm")


def layer_rules(config: Layer, d_model: int, stated: Callable[[str], bool], gated: tuple[str, ...]) -> Problems:
    """What holds of all feed-forward layers; `gated` are keys of those with a gate."""
    yield from too_large(("hidden",), f"hidden = {config.hidden}", config.hidden, d_model)
    listed = () if isinstance(config.bias, bool) else config.bias
    if twice := [name for name in LINEARS if listed.count(name) > 1]:
        yield Problem("E227", ("bias",), f"bias lists {' and '.join(twice)} twice", "list each once")
    if config.kind == "plain":
        for key in gated:
            if stated(key) and getattr(config, key) != type(config).model_fields[key].default:
                yield Problem("E250", (key,), f"{key} is of gated layers, this one is plain", "give kind: gated")
        if "gate" in listed:
            at = ("bias", listed.index("gate"))
            yield Problem("E250", at, "a plain layer has no gate", "give kind: gated, or list up and down")


def results(config: Layer) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    return ("gate", "act", "up", "down") if config.kind == "gated" else ("up", "act", "down")


def shrink(config: Ffn, tp: int) -> Ffn:
    """A few features a rank."""
    return config.model_copy(update={"hidden": few_features(config.hidden, 16, tp)})


def few_features(hidden: int, each: int, tp: int) -> int:
    """At most so many a rank; where ranks cannot have equally many, the last has one less."""
    return min(hidden, each * tp - 1) if hidden % tp else min(hidden, each * tp)


def normed(config: Ffn, model: Norm) -> Ffn:
    """With its norm, given the model's."""
    return config.model_copy(update={"sub_norm": norm.own(config.sub_norm, model)})


def lower(config: Ffn, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [..., d_model] -> the same."""
    hidden = Axis("ffn", config.hidden)
    x = between(config, b, x, features, b.linear, gate_scale=settled(config.gate_scale))
    if config.dropout:
        x = b.op("dropout", x, rate=config.dropout)
    if isinstance(config.sub_norm, Norm):
        x = norm.lower(config.sub_norm, b, x, "sub_norm", hidden)
    return b.linear(x, "down", features, hidden, config.has_bias("down"), last=True)


def between(
    config: Layer, b: Builder, x: Ref, features: Axis, linear: Linear, hint: str = "x", gate_scale: float = 1.0
) -> Ref:
    """x [..., d_model] -> what goes into down [..., ffn]."""
    hidden = Axis("ffn", config.hidden)
    if config.kind == "plain":
        x = linear(x, "up", hidden, features, config.has_bias("up"), hint=hint)
        return activation.lower(function(config), b, x, "act", hint)
    gate = linear(x, "gate", hidden, features, config.has_bias("gate"), hint="gate")
    if config.clamp is not None:
        gate = b.op("clamp", gate, name="gate_clamp", hint="gate", low=None, high=config.clamp)
    if gate_scale != 1.0:
        gate = b.op("scale", gate, name="gate_scale", hint="gate", factor=gate_scale)
    gate = activation.lower(function(config), b, gate, "act", "gate")
    up = linear(x, "up", hidden, features, config.has_bias("up"), hint="up")
    if config.clamp is not None:
        up = b.op("clamp", up, name="up_clamp", hint="up", low=-config.clamp, high=config.clamp)
    if config.up_offset:
        up = b.op("shift", up, name="up_offset", hint="up", by=config.up_offset)
    return b.op("mul", gate, up, hint=hint)


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
    grows=("hidden",),
    split_by_tp=lambda config: (("hidden", config.hidden),) if config.sub_norm else (),
    parted_by_tp=lambda config: (("hidden", config.hidden),),
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
