"""Embeddings and heads as Hypothesis draws them."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

Docs = st.SearchStrategy[dict[str, Any]]


def placed() -> Docs:
    """Positions, of a stack without padding."""
    offset = {"offset": st.just(2)}
    learned = st.fixed_dictionaries({"kind": st.just("learned")}, optional={**offset, "size": st.just(48)})
    order = {"order": st.just("halves"), "endpoint": st.booleans()}
    return st.one_of(learned, st.fixed_dictionaries({"kind": st.just("sinusoidal")}, optional={**offset, **order}))


def heads(norms: Docs) -> Docs:
    """Without a width of its own, which a tied one cannot have."""
    activation = st.sampled_from(("tanh", "xielu"))
    parts = {"activation": activation, "norm": st.one_of(st.booleans(), norms), "bias": st.booleans()}
    transform = st.fixed_dictionaries({}, optional=parts)
    scale = st.sampled_from(("1 / sqrt(d_model)", 0.5))
    rest = {"bias": st.just(True), "scale": scale, "softcap": st.just(2), "transform": transform}
    return st.fixed_dictionaries({}, optional=rest)
