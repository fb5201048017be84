"""Kernels of tests/ports/mamba2.py, and what the interpreter computes for its ops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [batch, seq, channels], weight [channels, taps], bias [channels] -> as x, of each position and those before."""
    x = F.pad(x, (0, 0, weight.size(1) - 1, 0)).transpose(1, 2)
    return F.conv1d(x, weight.unsqueeze(1), bias, groups=len(weight)).transpose(1, 2)


def scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, a_log: Tensor, d: Tensor, dt_bias: Tensor, chunk: int) -> Tensor:
    """x [batch, heads, seq, head_dim], dt [batch, seq, heads], b and c [batch, groups, seq, state] -> as x.

    The state space of Mamba 2 (Dao and Gu 2024, section 6) in chunks: within one as attention, between them by states.
    """
    dt = F.softplus(dt + dt_bias).transpose(1, 2)
    b, c = (z.repeat_interleave(x.size(1) // z.size(1), 1) for z in (b, c))
    decay, u = -a_log.exp()[:, None] * dt, x * dt.unsqueeze(-1)
    state = x.new_zeros(*x.shape[:2], x.size(-1), b.size(-1))
    out: list[Tensor] = []
    for decays, inputs, keys, queries in zip(*(z.split(chunk, 2) for z in (decay, u, b, c)), strict=True):
        total = decays.cumsum(-1)
        seen = torch.ones(total.size(-1), total.size(-1), dtype=torch.bool, device=x.device).tril()
        between = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~seen, float("-inf")).exp()
        out.append((queries @ keys.mT * between) @ inputs + total.exp().unsqueeze(-1) * (queries @ state.mT))
        rest = (total[..., -1:] - total).exp().unsqueeze(-1)
        state = total[..., -1, None, None].exp() * state + (inputs * rest).mT @ keys
    return torch.cat(out, 2) + d[:, None, None] * x


FUNCTIONS = {"causal_conv": causal_conv, "scan": scan}
