"""A norm on queries and keys (Henry et al. 2020): over each head, or over all heads together."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Tag

from specc.components import norm
from specc.components.base import Problem, Problems, Synonyms, by_kind
from specc.components.norm import Norm
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder

SYNONYMS: Synonyms = {"qk_norm": ("qk_layernorm", "use_qk_norm", "q_norm", "k_norm", "qk_ln")}


class QkNorm(Norm):
    """A norm on queries and keys; its keys change the model's, but another `kind` begins anew."""

    weight: Annotated[Annotated[bool, Tag("bool")] | Annotated[Literal["per_head"], Tag("text")], by_kind] = True  # pyright: ignore
    """One factor for each feature of a head; `per_head`: each head has its own; false: there is none."""
    over: Literal["head", "width"] = "head"
    """A statistic of each head, or one of all heads together."""
    after_rope: bool = False
    """It stands behind the rotation."""


OwnQkNorm = Annotated[Annotated[bool, Tag("bool")] | Annotated[QkNorm, Tag("mapping")], by_kind]
"""true: the model's norm, over each head."""


def own(value: bool | QkNorm, model: Norm) -> QkNorm | Literal[False]:
    """What stands in a component, given the model's norm."""
    if value is False:
        return False
    stated = QkNorm() if value is True else value
    keys = stated.model_fields_set & Norm.model_fields.keys()
    plain = {key: bool(getattr(stated, key)) if key == "weight" else getattr(stated, key) for key in keys}
    base = model.changed(Norm.model_construct(keys, **plain))
    taken = {key: getattr(base, key) for key in Norm.model_fields}
    by_head = {"weight": "per_head"} if stated.weight == "per_head" else {}
    return stated.model_copy(update={**taken, **by_head})


def rules(config: QkNorm, rotated: bool) -> Problems:
    """What must hold of a resolved one, under `qk_norm`; `rotated`: the component has a rope."""
    if config.weight == "per_head" and config.weight_offset:
        at = ("qk_norm", "weight_offset" if "weight_offset" in config.model_fields_set else "weight")
        message = f"weights of each head are factors themselves, and weight_offset = {config.weight_offset:g}"
        yield Problem("E270", at, message, "give weight_offset: 0, or leave per_head out")
    if config.over == "width" and config.weight == "per_head":
        message = "one statistic of all heads has one weight for each feature, not one per head"
        yield Problem("E270", ("qk_norm", "weight"), message, "leave weight out, or give over: head")
    if config.after_rope and (config.over == "width" or not rotated):
        why = "over: width stands before heads are split" if rotated else "there is no rope"
        yield Problem("E270", ("qk_norm", "after_rope"), f"after_rope has no place: {why}", "leave after_rope out")


def over_width(config: QkNorm | bool, b: Builder, x: Ref, name: str, features: Axis) -> Ref:
    """x [batch, seq, heads*head_dim] -> the same."""
    if not isinstance(config, QkNorm) or config.over != "width":
        return x
    return norm.lower(config, b, x, name, features, name[0])


def over_heads(config: QkNorm | bool, b: Builder, x: Ref, name: str, heads: Axis, head_dim: Axis, rotated: bool) -> Ref:
    """x [batch, heads, seq, head_dim] -> the same; `rotated`: what stands behind the rotation, or else before it."""
    if not isinstance(config, QkNorm) or config.over != "head" or config.after_rope != rotated:
        return x
    if config.weight != "per_head":
        return norm.lower(config, b, x, name, head_dim, name[0])
    x = norm.lower(config.model_copy(update={"weight": False, "bias": False}), b, x, name, head_dim, name[0])
    params = [b.param(name, "weight", (heads, head_dim), Init("ones"), "head_scale")]
    if config.bias:
        params.append(b.param(name, "bias", (heads, head_dim), Init("zeros"), "head_scale"))
    return b.op("head_scale", x, name=f"{name}_scale", hint=name[0], params=tuple(params))
