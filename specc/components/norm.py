"""Norms over d_model: RMS (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Tag

from specc.components.base import Config, Eps, Problems, by_kind
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Norm(Config):
    """A norm over the features of a token; its keys change the model's, but another `kind` begins anew."""

    kind: Literal["rms", "layer"] = "rms"
    """`rms` divides by the root mean square, `layer` also subtracts the mean."""
    eps: Eps = 1e-5
    """Added to the mean square before the root."""
    bias: bool | None = None
    """A learned offset. Default: true for `layer`, false for `rms`."""

    def resolved(self) -> Norm:
        """With every default filled in."""
        return self if self.bias is not None else self.model_copy(update={"bias": self.kind == "layer"})

    def changed(self, other: Norm) -> Norm:
        """This norm with the keys that the other states; one of another kind begins anew."""
        stated = {key: getattr(other, key) for key in Norm.model_fields if key in other.model_fields_set}
        if stated.get("kind", self.kind) != self.kind:
            return other.resolved()
        return self.model_copy(update=stated).resolved()

    def problems(self, features: int, stated: Norm) -> Problems:
        """What must hold of a resolved norm over so many features, of which these keys are stated."""
        yield from ()


OwnNorm = Annotated[Annotated[bool, Tag("bool")] | Annotated[Norm, Tag("mapping")], by_kind]
"""true: the model's norm; a mapping: the model's norm with these keys changed."""


def lower(config: Norm, b: Builder, x: Ref, name: str, features: Axis, hint: str = "x") -> Ref:
    """x [..., features] -> the same."""
    kind = f"{config.kind}_norm"
    params = [b.param(name, "weight", (features,), Init("ones"), kind)]
    if config.bias:
        params.append(b.param(name, "bias", (features,), Init("zeros"), kind))
    return b.op(kind, x, name=name, hint=hint, params=tuple(params), eps=config.eps)
