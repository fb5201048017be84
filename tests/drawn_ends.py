"""Embeddings and heads as Hypothesis draws them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Docs = st.SearchStrategy[dict[str, Any]]


def placed() -> Docs:
    """Positions, of a stack without padding."""
    offset = {"offset": st.just(2)}
    learned = st.fixed_dictionaries({"kind": st.just("learned")}, optional={**offset, "size": st.just(48)})
    order = {"order": st.just("halves"), "endpoint": st.booleans()}
    return st.one_of(learned, st.fixed_dictionaries({"kind": st.just("sinusoidal")}, optional={**offset, **order}))


def embeddings(roles: Sequence[str], norms: Docs) -> Docs:
    """Of a model with these stacks."""
    pairs = st.permutations([*roles, "head"]).map(lambda parts: parts[:2])
    tied = st.one_of(st.booleans(), pairs)
    positions = st.one_of(st.sampled_from(("none", "learned", "sinusoidal")), placed())
    outside = {"norm": st.one_of(st.booleans(), norms), "types": st.just(3) if len(roles) == 1 else st.just(0)}
    project = st.one_of(st.just(12), st.just({"dim": 12, "bias": True, "at": "tokens"}))
    scales = st.sampled_from(("sqrt(d_model)", 2, 0.5))
    inner = {"positions": positions, "tied": tied, "scale": scales, "project": project}
    return st.fixed_dictionaries({}, optional={**inner, **outside})


def marked(blocks: list[Any]) -> None:
    """What says that attention is causal says that it has a prefix."""
    for block in blocks:
        for sublayer in block:
            for branch in (sublayer, *sublayer.get("parallel", ())):
                if branch.get("attention", {}).get("causal"):
                    branch["attention"]["causal"] = "prefix"


def fitting(doc: dict[str, Any]) -> dict[str, Any]:
    """Without what goes with a head of a vocabulary alone, where the head is another."""
    kind = doc.get("head", {}).get("kind", "lm")
    embedding = doc.get("embedding", {})
    kept = {key: value for key, value in embedding.items() if key != "tied" or kind == "lm"}
    doc = {**doc, "embedding": kept} if "embedding" in doc else doc
    return {key: value for key, value in doc.items() if key != "loss" or kind != "vector"}


def imaged(doc: dict[str, Any], class_token: bool, still: bool) -> dict[str, Any]:
    """Its one stack reads images, or frames, of each 12 tokens: nothing is said of tokens that are read."""
    stem: dict[str, Any] = {"kind": "patches", "image": 6, "patch": 2, "channels": 2, "bias": class_token}
    if not still:
        convs = [{"width": 3}, {"width": 5, "stride": 2}]
        stem = {"kind": "frames", "channels": 3, "convs": convs, "activation": "silu", "bias": class_token}
        doc = {**doc, "max_seq": 12}
    kept = {key: value for key, value in doc.get("embedding", {}).items() if key not in ("types", "tied")}
    if isinstance(kept.get("positions"), dict):
        kept["positions"] = {key: value for key, value in kept["positions"].items() if key != "size"}
    embedding = {**kept, "stem": stem, "class_token": class_token, "registers": 3 - class_token}
    gone = ("pad",) if doc.get("head", {}).get("kind", "lm") == "lm" else ("pad", "vocab")
    gone += ("max_seq",) * still
    return {**{key: value for key, value in doc.items() if key not in gone}, "embedding": embedding}


def heads(norms: Docs) -> Docs:
    """Without a width of its own, which a tied one cannot have."""
    activation = st.sampled_from(("tanh", "xielu"))
    parts = {"activation": activation, "norm": st.one_of(st.booleans(), norms), "bias": st.booleans()}
    transform = st.fixed_dictionaries({}, optional=parts)
    scale = st.sampled_from(("1 / sqrt(d_model)", 0.5))
    pools = st.sampled_from(("first", "last", "mean", "max"))
    ends = {"normalize": st.booleans(), "scale": scale, "transform": transform, "pool": pools, "dropout": st.just(0.1)}
    classes = {"kind": st.just("classes"), "classes": st.just(5)}
    rows = {"bias": st.just(True), "dropout": st.just(0.1), "scale": scale, "transform": transform, "pool": pools}
    rest = {"bias": st.just(True), "scale": scale, "softcap": st.just(2), "transform": transform}
    return st.one_of(
        st.fixed_dictionaries({}, optional=rest),
        st.fixed_dictionaries(classes, optional=rows),
        st.fixed_dictionaries({"kind": st.just("vector")}, optional=ends),
    )
