"""Mixture of experts: a router sends each token to a few gated feed-forward layers (Shazeer et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from specc.components import ffn
from specc.components.base import Component, Config, Dim, Given, Problem, Problems, divisors, too_large
from specc.emit.forms.base import Form, Split
from specc.emit.forms.dense import COLUMN, ROW
from specc.extension import Extension, LayoutAxis
from specc.ir.op import Ref
from specc.ir.types import TOKEN_AXES, Axis
from tests.ports import expert_ops
from tests.ports.text import called, through

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Moe(Config):
    """Mixture of gated feed-forward layers."""

    experts: Dim
    """Feed-forward layers."""
    top_k: Dim
    """Experts that a token goes to."""
    hidden: Dim
    """Features between the linears of an expert."""
    balance: float = 0.0
    """Factor of the loss that evens out how much the experts are used."""
    shared: Dim | None = None
    """Hidden features of an expert that every token goes to."""


def rules(config: Moe, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """A token goes to different experts."""
    if config.top_k > config.experts:
        message = f"top_k = {config.top_k} of experts = {config.experts}"
        yield Problem("E291", ("top_k",), message, f"at most {config.experts}")
    yield from too_large(("hidden",), f"hidden = {config.hidden}", config.hidden, d_model)


def lower(config: Moe, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    hidden, experts = Axis("ffn", config.hidden), Axis("experts", config.experts)
    logits = b.linear(x, "router", Axis("choices", config.experts), features, False, hint="logits")
    route = b.op("route", logits, hints=("gates", "ids"), top_k=config.top_k, renormalised=True)
    gates, ids = Ref(route.op, 0), Ref(route.op, 1)
    if config.balance:
        term = b.op("balance", logits, ids, hint="term")
        b.term(b.op("scale", term, name="balance_scaled", hint="term", factor=config.balance))
    dispatch = b.op("dispatch", x, ids, hints=("rows", "owner"))
    rows, owner = Ref(dispatch.op, 0), Ref(dispatch.op, 1)

    def grouped(rows: Ref, name: str, out: Axis, inner: Axis, hint: str, last: bool = False) -> Ref:
        weight = b.param(name, "weight", (experts, out, inner), b.weight_init(out, inner, last), "grouped_linear")
        return b.op("grouped_linear", rows, owner, name=name, hint=hint, params=(weight,))

    gate = grouped(rows, "gate", hidden, features, "gate")
    gate = b.op("activation", gate, name="act", hint="gate", function="silu")
    rows = b.op("mul", gate, grouped(rows, "up", hidden, features, "up"), hint="rows")
    rows = grouped(rows, "down", features, hidden, "rows", last=True)
    out = b.op("combine", rows, gates, ids)
    if config.shared is not None:
        inner = ffn.Ffn(kind="gated", hidden=config.shared, activation="silu")
        with b.scope("shared", (x,), ("SharedExpert",)):
            own = ffn.lower(inner, b, x, {}, features)
        out = b.op("add", out, own)
    return out


def shrink(config: Moe, tp: int) -> Moe:
    """A few experts of a few features a rank; numbers of ranks that are prime still divide them."""
    primes = [n for n in divisors(config.experts) if len(divisors(n)) == 2]
    few = next((n for n in divisors(config.experts) if n > 3 and not any(n % p for p in primes)), config.experts)
    update = {"experts": few, "top_k": min(config.top_k, few), "hidden": 8 * tp}
    return config.model_copy(update=update | ({"shared": 8 * tp} if config.shared else {}))


MOE = Component(
    "moe",
    Moe,
    "MixtureOfExperts",
    lower,
    smallest={"experts": 1, "top_k": 1, "hidden": 1},
    shards=("ffn",),
    split_by_tp=lambda config: (("hidden", config.hidden), *([("shared", config.shared)] if config.shared else [])),
    split_by={"ep": lambda config: (("experts", config.experts),)},
    results=lambda config: ("router", "route", "dispatch", "gate", "act", "up", "down", "combine"),
    shrink=shrink,
    adds_to_loss=lambda config: bool(config.balance),
    rules=rules,
)

EXPERTS = Form(
    "grouped_linear",
    "Experts",
    "A linear of each expert.",
    {"weight": ("experts", "n_out", "n_in")},
    ("experts", "n_in", "n_out"),
    "rows: Tensor, owner: Tensor",
    lambda values, optional: [f"return grouped_linear(rows, owner, {values['weight']})"],
    splits={"experts": Split("Own", "Experts are split over {}"), "n_out": COLUMN, "n_in": ROW},
)
EXPERT = LayoutAxis(
    "ep",
    "Ranks that hold different samples, and different experts.",
    "experts are split over ep = {}, tokens go to them by all-to-all",
    tokens=("batch",),
    shards=("experts",),
    data=True,
)
EXTENSION = Extension(
    "moe",
    (MOE,),
    expert_ops.OPS,
    (EXPERTS,),
    {
        "route": called("route", "top_k", "renormalised"),
        "dispatch": called("dispatch"),
        "to_experts": called("to_experts", "experts"),
        "grouped_linear": through("grouped_linear"),
        "from_experts": called("from_experts", "experts"),
        "combine": called("combine"),
        "balance": called("balance", ordered=True),
    },
    kernels=(Path(__file__).with_name("experts.py"),),
    functions="tests.ports.experts:FUNCTIONS",
    axes=(EXPERT,),
    alike={"slots": ("batch", *TOKEN_AXES)},
)
