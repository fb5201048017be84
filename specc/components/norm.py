"""Norms over d_model: RMS (Zhang and Sennrich 2019) and layer norm (Ba et al. 2016)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from specc.components.base import Config, Eps
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


class Norm(Config):
    """A norm over the features of a token."""

    kind: Literal["rms", "layer"] = "rms"
    """`rms` divides by the root mean square, `layer` also subtracts the mean."""
    eps: Eps = 1e-5
    """Added to the mean square before the root."""
    bias: bool | None = None
    """A learned offset. Default: true for `layer`, false for `rms`."""

    def resolved(self) -> Norm:
        """With every default filled in."""
        return self if self.bias is not None else self.model_copy(update={"bias": self.kind == "layer"})


def lower(config: Norm, b: Builder, x: Ref, name: str, features: Axis, hint: str = "x") -> Ref:
    """x [..., features] -> the same."""
    kind = f"{config.kind}_norm"
    params = [b.param(name, "weight", (features,), Init("ones"), kind)]
    if config.bias:
        params.append(b.param(name, "bias", (features,), Init("zeros"), kind))
    return b.op(kind, x, name=name, hint=hint, params=tuple(params), eps=config.eps)
