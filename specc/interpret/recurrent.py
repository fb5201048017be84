"""What the ops of recurrent mixers compute."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from torch import Tensor

from specc.kernels import convolution as kernels
from specc.kernels import delta, linear_scan, scans
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


def state_space(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, *more: Tensor, low: float = 0.0, high: float | None = None
) -> Tensor:
    """As the kernel; `more`: where documents start, if there are several, and the parameters"""
    *documents, a_log, d, dt_bias = more
    return scans.state_space(x, dt, b, c, a_log, d, dt_bias, low, high, *documents)


def later_state_space(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    cache: Cache,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    *,
    layer: Hashable,
    low: float = 0.0,
    high: float | None = None,
) -> Tensor:
    """As the kernel"""
    return scans.later_state_space(x, dt, b, c, a_log, d, dt_bias, layer, cache, low, high)


def delta_rule(q: Tensor, k: Tensor, v: Tensor, a: Tensor, beta: Tensor, *more: Tensor) -> Tensor:
    """As the kernel; `more`: where documents start, if there are several, and the parameters"""
    *documents, a_log, dt_bias = more
    return delta.delta_rule(q, k, v, a, beta, a_log, dt_bias, *documents)


def later_delta_rule(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    a: Tensor,
    beta: Tensor,
    cache: Cache,
    a_log: Tensor,
    dt_bias: Tensor,
    *,
    layer: Hashable,
) -> Tensor:
    """As the kernel"""
    return delta.later_delta_rule(q, k, v, a, beta, a_log, dt_bias, layer, cache)


def selective_scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, *more: Tensor) -> Tensor:
    """As the kernel; `more`: where documents start, if there are several, and the parameters"""
    *documents, a_log, d, dt_bias = more
    return linear_scan.selective_scan(x, dt, b, c, a_log, d, dt_bias, *documents)


def later_selective_scan(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    cache: Cache,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    *,
    layer: Hashable,
) -> Tensor:
    """As the kernel"""
    return linear_scan.later_selective_scan(x, dt, b, c, a_log, d, dt_bias, layer, cache)


def gated_recurrence(x: Tensor, i: Tensor, r: Tensor, *more: Tensor) -> Tensor:
    """As the kernel; `more`: where documents start, if there are several, and the parameter"""
    *documents, a = more
    return linear_scan.gated_recurrence(x, i, r, a, *documents)


def later_gated_recurrence(x: Tensor, i: Tensor, r: Tensor, cache: Cache, a: Tensor, *, layer: Hashable) -> Tensor:
    """As the kernel"""
    return linear_scan.later_gated_recurrence(x, i, r, a, layer, cache)


def head_rates(x: Tensor, *, heads: int, factor: float) -> Tensor:
    """x of any shape -> [heads]"""
    return scans.head_rates(heads, factor, x)


def later_linear_attention(q: Tensor, k: Tensor, v: Tensor, rates: Tensor, cache: Cache, *, layer: Hashable) -> Tensor:
    """As the kernel"""
    return scans.later_linear_attention(q, k, v, rates, layer, cache)


TABLE: dict[str, Callable[..., Any]] = {
    "causal_conv": causal_conv,
    "document_conv": document_conv,
    "later_conv": later_conv,
    "state_space": state_space,
    "later_state_space": later_state_space,
    "delta_rule": delta_rule,
    "later_delta_rule": later_delta_rule,
    "selective_scan": selective_scan,
    "later_selective_scan": later_selective_scan,
    "gated_recurrence": gated_recurrence,
    "later_gated_recurrence": later_gated_recurrence,
    "block_linear": linear_scan.block_linear,
    "head_rates": head_rates,
    "linear_attention": scans.linear_attention,
    "later_linear_attention": later_linear_attention,
}
