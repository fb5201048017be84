"""Which experts a token goes to and with what weights, and losses that even out how much each of them is used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from specc.components import norm
from specc.components.base import Bound, Config, Dim, Formula, Problem, Problems, Rate, choices, divisors, settled
from specc.components.norm import Norm, OwnNorm
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder

Weight = Annotated[float, Field(ge=0.0, le=1e4)]
"""Of a term in the loss."""


class Groups(Config):
    """A token goes to experts of a few groups alone, which have the best scores."""

    count: Dim
    """Equal parts of the experts, in order."""
    keep: Dim
    """How many of them a token goes to."""
    score: Literal["max", "top2"] = "top2"
    """Of a group: its best expert, or the sum of its two best."""
    fill: Literal["out", "zero"] = "out"
    """Experts of other groups: left out, or with the score 0."""


class Router(Config):
    """Which experts a token goes to, and with what weights."""

    score: Literal["softmax", "sigmoid", "sqrt_softplus"] = "softmax"
    """Of the router's logits: over all experts, or of each by itself; sqrt_softplus is the root of softplus."""
    normalize: bool = True
    """Weights of the chosen experts are divided by their sum."""
    eps: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0
    """Added to that sum."""
    scale: Formula = 1.0
    """Factor on the weights of the chosen experts."""
    bias: bool = False
    """A bias of the router's linear."""
    correction: bool = False
    """A number for each expert is added to scores for the choice alone; a buffer, which no gradient moves."""
    groups: Groups | None = None
    """Experts are chosen from the best groups."""
    softcap: Bound | None = None
    """Logits are softcap * tanh(logits / softcap)."""
    norm: OwnNorm = False
    """A norm on what the router reads."""
    in_scale: Formula = 1.0
    """Factor on that, behind the norm."""
    reads: Literal["input", "stream"] = "input"
    """What the experts read, or the stream as it is before any norm."""
    expert_scale: bool = False
    """A learned factor on the weights of each expert."""
    jitter: Rate = 0.0
    """In training, what router and experts read is multiplied by noise, drawn evenly from 1 - jitter to 1 + jitter."""


def results(config: Router) -> tuple[str, ...]:
    """Results that checkpointing can keep, in op order; the choice itself is kept in any case."""
    return ("router", "route")


def lower(
    config: Router, b: Builder, x: Ref, features: Axis, experts: int, top_k: int, balance: float, z: float
) -> tuple[Ref, Ref]:
    """x [batch, seq, d_model] -> weights and numbers of the chosen experts, [batch, seq, top_k].

    `experts` counts all that can be chosen; `balance` and `z` are factors of terms of the loss.
    """
    choices = Axis("choices", experts)
    logits = _logits(config, b, _read(config, b, x, features), features, choices)
    if config.softcap is not None:
        logits = b.op("logit_cap", logits, name="router_softcap", hint="logits", cap=config.softcap)
    scores = b.op("scores", logits, hint="scores", function=config.score)
    route = b.op("route", scores, *_by(config, b, scores, experts), hints=("gates", "ids"), top_k=top_k)
    gates, ids = Ref(route.op, 0), Ref(route.op, 1)
    if config.normalize:
        gates = b.op("normalise", gates, name="gates", hint="gates", eps=config.eps)
    if config.expert_scale:
        own = b.param("expert_scale", "weight", (choices,), Init("ones"), "expert_scale")
        gates = b.op("expert_scale", gates, ids, hint="gates", params=(own,))
    if settled(config.scale) != 1.0:
        gates = b.op("scale", gates, name="gates_scale", hint="gates", factor=settled(config.scale))
    terms = [_balance(config, b, scores, ids, experts, top_k, balance)] if balance else []
    if z:
        squares = b.op("squares", logits, hint="term")
        terms.append(b.op("scale", squares, name="z_scale", hint="term", factor=z))
    if terms:
        b.term(terms[0] if len(terms) == 1 else b.op("add", *terms, name="term", hint="term"))
    return gates, ids


def _read(config: Router, b: Builder, x: Ref, features: Axis) -> Ref:
    """What goes into the linear [batch, seq, d_model]."""
    if isinstance(config.norm, Norm):
        x = norm.lower(config.norm, b, x, "router_norm", features, "routed")
    if settled(config.in_scale) != 1.0:
        x = b.op("scale", x, name="router_scale", hint="routed", factor=settled(config.in_scale))
    return x


def _logits(config: Router, b: Builder, x: Ref, features: Axis, own: Axis) -> Ref:
    """x [batch, seq, d_model] -> [batch, seq, choices]."""
    if not config.correction:
        return b.linear(x, "router", own, features, config.bias, hint="logits")
    weight = b.param("router", "weight", (own, features), b.weight_init(own, features, False), "router")
    bias = [b.param("router", "bias", (own,), Init("zeros"), "router")] * config.bias
    return b.op("router", x, hint="logits", params=(weight, *bias))


def _by(config: Router, b: Builder, scores: Ref, experts: int) -> tuple[Ref, ...]:
    """What experts are chosen by, where that is not their scores [batch, seq, choices]."""
    by = scores
    if config.correction:
        own = b.param("router", "correction", (Axis("choices", experts),), Init("zeros"), "router", trained=False)
        by = b.op("correct", by, hint="by", params=(own,))
    if config.groups is not None and config.groups.keep < config.groups.count:
        groups, best = config.groups, 2 if config.groups.score == "top2" else 1
        fill = 0.0 if groups.fill == "zero" else None
        by = b.op("limit", by, hint="by", groups=groups.count, keep=groups.keep, best=best, fill=fill)
    return () if by is scores else (by,)


def rules(config: Router, experts: int, top_k: int, d_model: int) -> Problems:
    """There is something to choose from."""
    for problem in norm.inner(config.norm, d_model, "norm"):
        yield Problem(problem.code, ("router", *problem.path), problem.message, problem.help)
    if config.jitter and config.reads == "stream":
        message = "jitter is on what router and experts both read, and this router reads the stream"
        yield Problem("E288", ("router", "jitter"), message, "leave one of them out")
    for key in ("correction", "groups"):
        if getattr(config, key) and top_k == experts:
            message = f"a token goes to all {experts} experts, so nothing is chosen"
            yield Problem("E286", ("router", key), message, f"leave {key} out, or lower top_k")
    if config.groups is None or top_k >= experts:
        return
    count, keep = config.groups.count, config.groups.keep
    each = experts // count
    if experts % count:
        message = f"{plural(count, 'group')} cannot part {experts} experts evenly"
        yield Problem("E287", ("router", "groups", "count"), message, f"count can be {choices(divisors(experts))}")
    elif keep > count:
        message = f"keep = {keep} of {plural(count, 'group')}"
        yield Problem("E287", ("router", "groups", "keep"), message, f"at most {count}")
    elif top_k > keep * each:
        message = f"a token cannot go to top_k = {top_k} of the {keep * each} experts in {plural(keep, 'group')}"
        yield Problem("E287", ("router", "groups", "keep"), message, f"at least {-(-top_k // each)}")
    elif each == 1 and config.groups.score == "top2":
        message = "groups of one expert have no second"
        yield Problem("E287", ("router", "groups", "score"), message, "give score: max, or fewer groups")


def _balance(config: Router, b: Builder, scores: Ref, ids: Ref, experts: int, top_k: int, factor: float) -> Ref:
    """The sum over rows of their tokens' losses."""
    likely = scores
    if config.score != "softmax":
        likely = b.op("normalise", scores, name="likely", hint="likely", eps=0.0)
    likely = b.op("total", likely, hint="likely")
    used = b.op("usage", ids, hint="used", experts=experts)
    term = b.op("balance", used, likely, hint="term", top_k=top_k)
    return b.op("scale", term, name="balance_scale", hint="term", factor=factor)
