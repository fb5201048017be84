"""What the ops of recurrent mixers compute."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from specc.kernels import convolution as kernels
from specc.kernels.cache import Cache, tail


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [batch, seq, channels] -> the same"""
    return kernels.causal_conv(x, weight, bias)


def document_conv(x: Tensor, first: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [batch, seq, channels], first [batch, seq] -> as x"""
    return kernels.document_conv(x, weight, bias, first)


def later_conv(x: Tensor, cache: Cache, weight: Tensor, bias: Tensor | None = None, *, layer: Hashable) -> Tensor:
    """x [batch, seq, channels] -> the same"""
    return kernels.causal_conv(x, weight, bias, tail(cache, layer, x, weight.size(1) - 1))


TABLE: dict[str, Callable[..., Any]] = {
    "causal_conv": causal_conv,
    "document_conv": document_conv,
    "later_conv": later_conv,
}
