"""Mixtures of experts as Hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Doc = dict[str, Any]
SCORES = ("softmax", "sigmoid", "sqrt_softplus")


@st.composite
def moes(draw: st.DrawFn, layer: Doc, norms: st.SearchStrategy[Doc], tp: int) -> Doc:
    """Experts of a layer that was drawn."""
    experts, none = draw(st.sampled_from((2, 3, 4, 6))), draw(st.sampled_from((0, 0, 1, 2)))
    top_k, choices = draw(st.integers(1, min(3, experts + none - 1))), experts + none
    router: dict[str, st.SearchStrategy[Any]] = {
        **{key: st.booleans() for key in ("correction", "normalize", "bias", "expert_scale")},
        "score": st.sampled_from(SCORES),
        "eps": st.just(0.1),
        "scale": st.sampled_from((0.7, "sqrt(top_k)")),
        "in_scale": st.sampled_from((2, "d_model ** -0.5")),
        "softcap": st.just(3),
        "norm": st.one_of(st.booleans(), norms),
        **draw(st.sampled_from(({"reads": st.just("stream")}, {"jitter": st.just(0.1)}))),
    }
    if choices % 2 == 0:
        router["groups"] = st.just({"count": choices // 2, "keep": -(-top_k // 2)})
    shared = st.fixed_dictionaries({"hidden": st.just(4 * tp), "gate": st.booleans()})
    rest = {
        "balance_loss": st.just(0.3),
        "z_loss": st.just(0.1),
        "shared": shared,
        "latent": st.just(6),
        "apply_to": st.just("input"),
        "router": st.fixed_dictionaries({}, optional=router),
    }
    more = draw(st.fixed_dictionaries({}, optional=rest))
    return {"experts": experts, "top_k": top_k, **layer, **more, **({"zero_experts": none} if none else {})}
