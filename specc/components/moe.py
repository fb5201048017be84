"""Mixture of experts: a router sends each token to a few feed-forward layers of many (Shazeer et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from specc.components import ffn, norm, router
from specc.components.base import Bound, Component, Config, Dim, Given, Problem, Problems, Synonyms, divisors, too_large
from specc.components.ffn import Ffn, Layer
from specc.components.norm import Norm
from specc.components.router import Router, Weight
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Shared(Config):
    """A feed-forward layer of the experts' kind that every token takes."""

    hidden: Dim
    """Features between its linears; several shared experts are one of as many times the features."""
    gate: bool = False
    """Its result is multiplied by the sigmoid of a linear to one number."""
    bias: bool | None = None
    """A bias of each of its linears. Default: those that the experts have."""
    clamp: Bound | None = None
    """As the experts'. Default: theirs."""


class Moe(Layer):
    """Mixture of experts, each a feed-forward layer: `hidden` and the keys around it are of one of them."""

    experts: Dim
    """Number of experts."""
    top_k: Dim
    """Experts that a token goes to."""
    router: Router = Router()
    """Which these are, and what weights their results have."""
    shared: Shared | None = None
    """A feed-forward layer that every token takes beside them."""
    latent: Dim | None = None
    """Experts work in so many features, between two linears without bias; router and shared layer do not."""
    zero_experts: Annotated[int, Field(ge=0, le=2**24)] = 0
    """Further choices, behind the experts, which give back what experts are given."""
    apply_to: Literal["output", "input"] = "output"
    """Whether the weights of chosen experts multiply what these give or what they are given."""
    balance_loss: Weight = 0.0
    """Factor of a term in the loss of each token: the sum over experts of the share of its row's tokens that go to one,
    times the mean of its probability there, times the number of experts (Fedus et al. 2021). Layers add up."""
    z_loss: Weight = 0.0
    """Factor of another: the squared logarithm of the sum of exponentials of the router's logits (Zoph et al. 2022)."""


def normed(config: Moe, model: Norm) -> Moe:
    """With the norm of its router, given the model's."""
    made = config.router.model_copy(update={"norm": norm.own(config.router.norm, model)})
    return config.model_copy(update={"router": made})


def choices(config: Moe) -> int:
    """All that a token can go to."""
    return config.experts + config.zero_experts


def rules(config: Moe, d_model: int, stated: Callable[[str], bool]) -> Problems:
    """A token goes to different experts, which are feed-forward layers."""
    yield from ffn.layer_rules(config, d_model, stated, ("clamp", "up_offset"))
    if config.top_k > choices(config):
        more = f" and {plural(config.zero_experts, 'zero expert')}" * bool(config.zero_experts)
        message = f"a token cannot go to top_k = {config.top_k} of {config.experts} experts{more}"
        yield Problem("E285", ("top_k",), message, f"at most {choices(config)}")
    yield from router.rules(config.router, choices(config), config.top_k, d_model)
    largest = max(config.hidden, d_model)
    yield from too_large(("experts",), f"experts = {config.experts}", choices(config), largest)
    if config.latent is not None:
        yield from too_large(("latent",), f"latent = {config.latent}", config.latent, largest)
    if config.shared is not None:
        hidden = config.shared.hidden
        yield from too_large(("shared", "hidden"), f"shared.hidden = {hidden}", hidden, d_model)
        if config.kind == "plain" and config.shared.clamp is not None:
            message = "clamp is of gated layers, these are plain"
            yield Problem("E250", ("shared", "clamp"), message, "give kind: gated")


def results(config: Moe) -> tuple[str, ...]:
    """Results that checkpointing can keep."""
    before, after = (("latent_in",), ("latent_out",)) if config.latent else ((), ())
    gate = ("shared_gate", "shared_gate_act") if config.shared and config.shared.gate else ()
    return (*router.results(config.router), *before, "dispatch", *ffn.results(config), "combine", *after, *gate)


def shrink(config: Moe, tp: int) -> Moe:
    """A few experts of a few features a rank; numbers of ranks that are prime still divide them."""
    primes = [n for n in divisors(config.experts) if len(divisors(n)) == 2]
    few = next((n for n in divisors(config.experts) if n > 3 and not any(n % p for p in primes)), config.experts)
    none, groups = min(config.zero_experts, 2), config.router.groups
    top_k = min(config.top_k, few + none if config.top_k == choices(config) else few + none - 1)
    if groups is not None:
        count = min(groups.count, 4)
        keep = min(groups.keep, count - (groups.keep < groups.count))
        groups = groups.model_copy(update={"count": count, "keep": keep})
        few, none = max(2, -(-top_k // keep)) * count, none and count
    shared = config.shared and config.shared.model_copy(
        update={"hidden": ffn.few_features(_shared(config, config.shared).hidden, 8, tp)}
    )
    made = config.router.model_copy(update={"groups": groups})
    sizes = {
        "experts": few,
        "zero_experts": none,
        "top_k": max(1, top_k),
        "hidden": ffn.few_features(config.hidden, 8, tp),
    }
    latent = config.latent and min(config.latent, 12)
    return config.model_copy(update={**sizes, "latent": latent, "shared": shared, "router": made})


def parted_by_tp(config: Moe) -> tuple[tuple[str, int], ...]:
    """Features between linears."""
    return (("hidden", config.hidden), *([("shared.hidden", config.shared.hidden)] if config.shared else ()))


def lower(config: Moe, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    whole = x
    if config.router.jitter:
        x = b.op("jitter", x, hint="noised", rate=config.router.jitter)
    gates, ids = router.lower(
        config.router,
        b,
        given.get("stream", x),
        features,
        choices(config),
        config.top_k,
        config.balance_loss,
        config.z_loss,
    )
    if config.latent is None:
        out = _routed(config, b, x, gates, ids, features)
    else:
        latent = Axis("latent", config.latent)
        inner = b.linear(x, "latent_in", latent, features, False, hint="latent")
        out = _routed(config, b, inner, gates, ids, latent)
        out = b.linear(out, "latent_out", features, latent, False, last=True)
    if config.shared is not None:
        out = b.op("add", out, _of_all(config, config.shared, b, whole, features))
    return out


def _routed(config: Moe, b: Builder, x: Ref, gates: Ref, ids: Ref, features: Axis) -> Ref:
    """x [batch, seq, features] through the experts that each token goes to, `gates` and `ids` [batch, seq, top_k]."""
    experts, hidden = Axis("experts", config.experts), Axis("ffn", config.hidden)
    few: dict[str, Any] = {"experts": config.experts} if config.zero_experts else {}
    weights = (gates,) if config.apply_to == "input" else ()
    dispatch = b.op("dispatch", x, ids, *weights, hints=("rows", "owner", "order"), **few)
    rows, owner, order = (Ref(dispatch.op, n) for n in range(3))

    def linear(x: Ref, name: str, out: Axis, inner: Axis, bias: bool, hint: str = "x", last: bool = False) -> Ref:
        kind = "grouped_last" if bias and last else "grouped_linear"
        start = b.weight_init(out, inner, last and config.latent is None)
        weight = b.param(name, "weight", (experts, out, inner), start, kind)
        params = (weight,) if last or not bias else (weight, b.param(name, "bias", (experts, out), Init("zeros"), kind))
        return b.op(kind, x, owner, name=name, hint=hint, params=params)

    rows = ffn.between(config, b, rows, features, linear, "rows")
    rows = linear(rows, "down", features, hidden, config.has_bias("down"), "rows", last=True)
    if weights:
        out = b.op("collect", rows, ids, order, name="combine")
    else:
        out = b.op("combine_some" if few else "combine", rows, gates, order, name="combine")
    if config.has_bias("down"):
        bias = b.param("down", "bias", (experts, features), Init("zeros"), "grouped_last")
        if few or weights:
            out = b.op("some_bias", out, ids, *(() if weights else (gates,)), name="down_bias", params=(bias,))
        else:
            out = b.op("expert_bias", out, gates, ids, name="down_bias", params=(bias,))
    return b.op("add", out, b.op("returned", x, gates, ids, hint="unchanged", **few)) if few else out


def _of_all(config: Moe, shared: Shared, b: Builder, x: Ref, features: Axis) -> Ref:
    """x [batch, seq, d_model] through the layer that every token takes."""
    with b.scope("shared", (x,), ("SharedExpert",)):
        out = ffn.lower(_shared(config, shared), b, x, {}, features)
    if not shared.gate:
        return out
    gate = b.linear(x, "shared_gate", Axis("1", 1), features, False, hint="gate")
    gate = b.op("activation", gate, name="shared_gate_act", hint="gate", function="sigmoid")
    return b.op("mul", out, gate)


def _shared(config: Moe, shared: Shared) -> Ffn:
    """The layer that every token takes."""
    like = {key: getattr(config, key) for key in Layer.model_fields}
    own = {key: value for key in ("hidden", "bias", "clamp") if (value := getattr(shared, key)) is not None}
    return Ffn.model_construct(None, **{**like, **own})


SYNONYMS: Synonyms = {
    "moe": ("mixture_of_experts", "sparse_moe", "block_sparse_moe"),
    "experts": ("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"),
    "top_k": ("num_experts_per_tok", "moe_topk", "moe_k", "num_experts_per_token"),
    "hidden": ("moe_intermediate_size", "expert_dim"),
    "shared": ("n_shared_experts", "shared_expert", "shared_experts", "num_shared_experts"),
    "balance_loss": ("router_aux_loss_coef", "aux_loss", "aux_loss_coef", "load_balancing_loss"),
    "z_loss": ("router_z_loss_coef",),
    "normalize": ("norm_topk_prob", "renormalize", "normalise", "route_norm"),
    "correction": ("e_score_correction_bias", "expert_bias", "bias_update"),
    "count": ("n_group", "num_expert_group"),
    "keep": ("topk_group",),
    "score": ("scoring_func", "score_func", "router_act"),
    "scale": ("routed_scaling_factor", "route_scale"),
    "latent": ("moe_latent_size",),
    "zero_experts": ("zero_expert_num", "identity_experts"),
    "apply_to": ("apply_router_weight_on_input", "moe_apply_router_weight_on_input"),
    "softcap": ("router_logit_softcapping", "moe_router_logit_softcapping"),
    "jitter": ("router_jitter_noise", "jitter_noise"),
    "expert_scale": ("per_expert_scale",),
}

MOE = Component(
    "moe",
    Moe,
    "MixtureOfExperts",
    lower,
    smallest={"experts": 1, "top_k": 1, "hidden": 1},
    shards=("ffn",),
    grows=("hidden", "shared.hidden", "latent"),
    split_by_tp=lambda config: (),
    parted_by_tp=parted_by_tp,
    split_by={"ep": lambda config: (("experts", config.experts),)},
    results=results,
    shrink=shrink,
    normed=normed,
    streamed=lambda config: config.router.reads == "stream",
    adds_to_loss=lambda config: bool(config.balance_loss or config.z_loss),
    verb="feed_experts",
    resolve=ffn.resolve,
    rules=rules,
    decided=lambda config, role: {"activation": (config.activation, "silu for gated, gelu for plain")},
    synonyms=SYNONYMS,
)
