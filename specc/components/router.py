"""Which experts a token goes to and with what weights, and losses that even out how much each of them is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from specc.components.base import Config, Factor
from specc.ir.op import Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

Weight = Annotated[float, Field(ge=0.0, le=1e4)]
"""Of a term in the loss."""


class Router(Config):
    """Which experts a token goes to, and with what weights."""

    score: Literal["softmax", "sigmoid", "sqrt_softplus"] = "softmax"
    """Of the router's logits: over all experts, or of each by itself; sqrt_softplus is the root of softplus."""
    normalize: bool = True
    """Weights of the chosen experts are divided by their sum."""
    eps: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Added to that sum."""
    scale: Factor = 1.0
    """Factor on the weights of the chosen experts."""
    bias: bool = False
    """A bias of the router's linear."""


def results(config: Router) -> tuple[str, ...]:
    """Results that checkpointing can keep, in op order; the choice itself is kept in any case."""
    return ("router", "route")


def lower(
    config: Router, b: Builder, x: Ref, features: Axis, experts: int, top_k: int, balance: float, z: float
) -> tuple[Ref, Ref]:
    """x [batch, seq, d_model] -> weights and numbers of the chosen experts, [batch, seq, top_k].

    `balance` and `z` are factors of terms of the loss.
    """
    logits = b.linear(x, "router", Axis("choices", experts), features, config.bias, hint="logits")
    scores = b.op("scores", logits, hint="scores", function=config.score)
    route = b.op("route", scores, hints=("gates", "ids"), top_k=top_k)
    gates, ids = Ref(route.op, 0), Ref(route.op, 1)
    if config.normalize:
        gates = b.op("normalise", gates, name="gates", hint="gates", eps=config.eps)
    if config.scale != 1.0:
        gates = b.op("scale", gates, name="gates_scale", hint="gates", factor=config.scale)
    terms = [_balance(config, b, scores, ids, experts, top_k, balance)] if balance else []
    if z:
        squares = b.op("squares", logits, hint="term")
        terms.append(b.op("scale", squares, name="z_scale", hint="term", factor=z))
    if terms:
        b.term(terms[0] if len(terms) == 1 else b.op("add", *terms, name="term", hint="term"))
    return gates, ids


def _balance(config: Router, b: Builder, scores: Ref, ids: Ref, experts: int, top_k: int, factor: float) -> Ref:
    """The sum over rows of their tokens' losses."""
    likely = scores
    if config.score != "softmax":
        likely = b.op("normalise", scores, name="likely", hint="likely", eps=0.0)
    likely = b.op("total", likely, hint="likely")
    used = b.op("usage", ids, hint="used", experts=experts)
    term = b.op("balance", used, likely, hint="term", top_k=top_k)
    return b.op("scale", term, name="balance_scale", hint="term", factor=factor)
