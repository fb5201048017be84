"""Norms over d_model: RMS (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Tag

from specc.components.base import Config, Dim, Eps, Factor, Problem, Problems, by_kind, choices, divisors
from specc.ir.op import Init, Ref
from specc.ir.types import Axis
from specc.source import plural

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Norm(Config):
    """A norm over the features of a token; its keys change the model's, but another `kind` begins anew."""

    kind: Literal["rms", "layer"] = "rms"
    """`rms` divides by the root mean square, `layer` also subtracts the mean."""
    eps: Eps = 1e-5
    """Added to the mean square before the root."""
    weight: bool = True
    """A learned factor for each feature."""
    bias: bool | None = None
    """A learned offset. Default: true for `layer` with a weight, else false."""
    weight_offset: Factor = 0.0
    """The factor is this plus the weight, which starts at 1 less this."""
    groups: Dim = 1
    """Equal parts of the features, each with its own mean and mean square."""

    def resolved(self) -> Norm:
        """With every default filled in."""
        bias = self.kind == "layer" and self.weight
        return self if self.bias is not None else self.model_copy(update={"bias": bias})

    def changed(self, other: Norm) -> Norm:
        """This norm with the keys that the other states; one of another kind begins anew."""
        stated = {key: getattr(other, key) for key in Norm.model_fields if key in other.model_fields_set}
        if stated.get("kind", self.kind) != self.kind:
            return other.resolved()
        none = {} if stated.get("weight", True) else {"weight_offset": 0.0, "bias": None}
        return self.model_copy(update=none | stated).resolved()

    def problems(self, features: int) -> Problems:
        """What must hold of a resolved norm over so many features."""
        if not self.weight and self.weight_offset:
            yield Problem(
                "E265", ("weight_offset",), "weight: false leaves no weight to offset", "leave one of them out"
            )
        if not self.weight and self.bias:
            yield Problem("E265", ("bias",), "a norm with a bias has a weight", "leave out weight: false, or the bias")
        if features % self.groups:
            message = f"{plural(self.groups, 'group')} cannot part {features} features evenly"
            yield Problem("E266", ("groups",), message, f"groups can be {choices(divisors(features))}")


OwnNorm = Annotated[Annotated[bool, Tag("bool")] | Annotated[Norm, Tag("mapping")], by_kind]
"""true: the model's norm; a mapping: the model's norm with these keys changed."""


def own(value: bool | Norm, model: Norm) -> Norm | Literal[False]:
    """What stands inside a component, given the model's norm."""
    if isinstance(value, bool):
        return model if value else False
    return model.changed(value)


def inner(value: bool | Norm, features: int, at: str) -> Problems:
    """What must hold of a resolved norm under that key of a component."""
    for problem in value.problems(features) if isinstance(value, Norm) else ():
        yield Problem(problem.code, (at, *problem.path), problem.message, problem.help)


def lower(config: Norm, b: Builder, x: Ref, name: str, features: Axis, hint: str = "x") -> Ref:
    """x [..., features] -> the same. Kinds of ops tell which arithmetic is in them: most norms are plain."""
    kind, attrs = f"{config.kind}_norm", dict[str, Any]()
    if config.weight_offset:
        kind, attrs["offset"] = f"offset_{kind}", config.weight_offset
    if config.groups > 1:
        kind, attrs["width"] = f"grouped_{kind}", features.length // config.groups
    start = {0.0: Init("ones"), 1.0: Init("zeros")}.get(
        config.weight_offset, Init("constant", 1.0 - config.weight_offset)
    )
    params = [b.param(name, "weight", (features,), start, kind)] if config.weight else []
    if config.bias:
        params.append(b.param(name, "bias", (features,), Init("zeros"), kind))
    return b.op(kind, x, name=name, hint=hint, params=tuple(params), eps=config.eps, **attrs)
