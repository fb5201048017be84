"""Attention that torch's kernels have no arguments for, written out (Vaswani et al. 2017, 3.2.1)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def pair_scores(q: Tensor, k: Tensor, scale: float) -> Tensor:
    """q [batch, heads, seq, head_dim], k [batch, kv_heads, keys, head_dim] -> [batch, heads, seq, keys]."""
    return (q * scale) @ k.repeat_interleave(q.size(1) // k.size(1), dim=1).transpose(-2, -1)


def masked(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores where the mask is true, or with a bias added; others are the least there is, so that none is a NaN."""
    if mask is None:
        return scores
    if mask.dtype != torch.bool:
        return scores + mask
    return scores.masked_fill(~mask, torch.finfo(scores.dtype).min)


def weighed(weights: Tensor, v: Tensor, dropout: float) -> Tensor:
    """weights [batch, heads, seq, keys], v [batch, kv_heads, keys, head_dim] -> [batch, heads, seq, head_dim]."""
    weights = F.dropout(weights, dropout) if dropout else weights
    return weights @ v.repeat_interleave(weights.size(1) // v.size(1), dim=1)


def with_sinks(scores: Tensor, sinks: Tensor) -> Tensor:
    """Weights [batch, heads, seq, keys] of which some goes to a key without value, of score sinks [heads]."""
    column = sinks[:, None, None].expand(*scores.shape[:-1], 1)
    return torch.cat((scores, column), dim=-1).softmax(-1)[..., :-1]


def capped_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float, cap: float, dropout: float = 0.0
) -> Tensor:
    """As scaled_dot_product_attention with grouped heads; scores are cap * tanh(scores / cap) (Bello et al. 2016)."""
    scores = cap * torch.tanh(pair_scores(q, k, scale / cap))
    return weighed(masked(scores, mask).softmax(-1), v, dropout)


def sink_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor, scale: float, dropout: float = 0.0
) -> Tensor:
    """As scaled_dot_product_attention with grouped heads; each head may attend to nothing (Agarwal et al. 2025)."""
    return weighed(with_sinks(masked(pair_scores(q, k, scale), mask), sinks), v, dropout)


def capped_sink_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sinks: Tensor, scale: float, cap: float, dropout: float = 0.0
) -> Tensor:
    """Of sink_attention, scores are cap * tanh(scores / cap)."""
    scores = cap * torch.tanh(pair_scores(q, k, scale / cap))
    return weighed(with_sinks(masked(scores, mask), sinks), v, dropout)
