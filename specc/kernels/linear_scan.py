"""Recurrences of each feature by itself, as scans in a number of steps that is the log of the length."""

from collections.abc import Hashable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from specc.kernels.cache import Cache, resumed


def accumulated(decay: Tensor, x: Tensor) -> Tensor:
    """decay and x [batch, seq, ...] -> h of h[t] = decay[t] * h[t - 1] + x[t], by sums of pairs (Blelloch 1990)."""
    levels: list[tuple[Tensor, Tensor]] = []
    while x.size(1) > 1:
        levels.append((decay, x))
        pairs = x.size(1) // 2 * 2
        x = x[:, 1::2] + decay[:, 1::2] * x[:, :pairs:2]
        decay = decay[:, 1::2] * decay[:, :pairs:2]
    for decay, every in reversed(levels):
        odd, x = x, every.clone()
        x[:, 1::2] = odd
        x[:, 2::2] += decay[:, 2::2] * odd[:, : (x.size(1) - 1) // 2]
    return x


class LinearScan(Function):
    @staticmethod
    def forward(ctx, decay, x):
        h = accumulated(decay, x)
        ctx.save_for_backward(decay, h)
        return h

    @staticmethod
    def backward(ctx, grad):
        decay, h = ctx.saved_tensors
        behind = torch.cat((decay[:, 1:], torch.zeros_like(decay[:, :1])), 1)
        grad = accumulated(behind.flip(1), grad.flip(1)).flip(1)
        before = torch.cat((torch.zeros_like(h[:, :1]), h[:, :-1]), 1)
        return grad * before, grad


def continued(decay: Tensor, x: Tensor, state: Tensor | None) -> Tensor:
    """The states of a recurrence that goes on from one [batch, ...], if there is one."""
    if state is not None:
        x = torch.cat((x[:, :1] + decay[:, :1] * state.unsqueeze(1), x[:, 1:]), 1)
    return LinearScan.apply(decay, x)


def goes_on(x: Tensor, first: Tensor) -> Tensor:
    """x [batch, seq, ...] -> which positions have one of their document before them [batch, seq, 1]."""
    return (torch.arange(x.size(1), device=x.device) != first).unsqueeze(-1)


def selected(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    first: Tensor | None = None,
    state: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """What `selective_scan` computes, and the last state, in float32 at least."""
    kind = torch.promote_types(x.dtype, torch.float32)
    x, dt, b, c, a_log, d, dt_bias = (z.to(kind) for z in (x, dt, b, c, a_log, d, dt_bias))
    steps = F.softplus(dt + dt_bias)
    decay = (-a_log.exp() * steps.unsqueeze(-1)).exp()
    if first is not None:
        decay = decay * goes_on(x, first).unsqueeze(-1)
    h = continued(decay, (steps * x).unsqueeze(-1) * b.unsqueeze(2), state)
    return (h * c.unsqueeze(2)).sum(-1) + d * x, h[:, -1]


def selective_scan(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    first: Tensor | None = None,
) -> Tensor:
    """x and dt [batch, seq, channels], b and c [batch, seq, state] -> as x: a state for each channel (Gu and Dao 2023).

    first [batch, seq] is where the document of each position starts.
    """
    return selected(x, dt, b, c, a_log, d, dt_bias, first)[0].to(x.dtype)


def later_selective_scan(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    layer: Hashable,
    cache: Cache,
) -> Tensor:
    """The same of the tokens that follow, from the state that the cache has of that layer."""
    return resumed(cache, layer, lambda state: selected(x, dt, b, c, a_log, d, dt_bias, None, state)).to(x.dtype)


def gated(
    x: Tensor, i: Tensor, r: Tensor, a: Tensor, first: Tensor | None = None, state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """What `gated_recurrence` computes, and the last state, in float32 at least."""
    kind = torch.promote_types(x.dtype, torch.float32)
    x, i, r, a = (z.to(kind) for z in (x, i, r, a))
    log = -8 * F.softplus(a) * r.sigmoid()
    decay, share = log.exp(), (-(2 * log).expm1()).clamp_min(1e-12).sqrt()
    if first is None:
        first = torch.zeros_like(x[..., 0], dtype=torch.int64)
    if state is None:  # a document's first position has nothing to share with
        on = goes_on(x, first)
        decay, share = decay * on, share.where(on, 1.0)
    h = continued(decay, x * i.sigmoid() * share, state)
    return h, h[:, -1]


def gated_recurrence(x: Tensor, i: Tensor, r: Tensor, a: Tensor, first: Tensor | None = None) -> Tensor:
    """x and its gates i and r [batch, seq, channels], a [channels] -> as x (De et al. 2024, section 2.4).

    first [batch, seq] is where the document of each position starts.
    """
    return gated(x, i, r, a, first)[0].to(x.dtype)


def later_gated_recurrence(x: Tensor, i: Tensor, r: Tensor, a: Tensor, layer: Hashable, cache: Cache) -> Tensor:
    """The same of the tokens that follow, from the state that the cache has of that layer."""
    return resumed(cache, layer, lambda state: gated(x, i, r, a, None, state)).to(x.dtype)


def block_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [..., heads*width], weight [heads, width, width], from each feature to each, bias [heads, width] -> as x."""
    return (torch.einsum("...hi,hij->...hj", x.unflatten(-1, bias.shape), weight) + bias).flatten(-2)
