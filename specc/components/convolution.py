"""A convolution of each channel over positions and those before them, which starts again at each document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specc.components.base import Given
from specc.ir.op import Init, Ref
from specc.ir.types import Axis

if TYPE_CHECKING:
    from specc.lower.builder import Builder


def lower(b: Builder, x: Ref, name: str, channels: Axis, taps: int, bias: bool, given: Given, hint: str = "x") -> Ref:
    """x [batch, seq, channels] -> the same. Weights start with the deviation that torch's have."""
    documents = (given["documents"],) if "documents" in given else ()
    kind = "document_conv" if documents else "causal_conv"
    params = [b.param(name, "weight", (channels, Axis("taps", taps)), Init("normal", (3 * taps) ** -0.5), kind)]
    if bias:
        params.append(b.param(name, "bias", (channels,), Init("zeros"), kind))
    return b.op(kind, x, *documents, name=name, hint=hint, params=tuple(params))
