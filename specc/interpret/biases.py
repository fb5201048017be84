"""What the ops of biases compute."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specc.kernels import biases as kernels


def slopes(like: Tensor, *, heads: int, above: bool) -> Tensor:
    """-> [heads]"""
    return (kernels.upper_alibi_slopes if above else kernels.alibi_slopes)(heads, like.device)


def alibi(slopes: Tensor, queries: Tensor, keys: Tensor, *, of: tuple[str, ...]) -> Tensor:
    """slopes [heads], positions [seq] and [keys] -> [heads, seq, keys]"""
    return slopes.view(-1, 1, 1) * -(queries.unsqueeze(1) - keys).abs()


def buckets(
    queries: Tensor, keys: Tensor, *, of: tuple[str, ...], buckets: int, max_distance: int, both: bool
) -> Tensor:
    """positions [seq] and [keys] -> [seq, keys]"""
    return (kernels.signed_buckets if both else kernels.earlier_buckets)(queries, keys, buckets, max_distance)


def relative_bias(buckets: Tensor, table: Tensor) -> Tensor:
    """buckets [seq, keys], table [buckets, heads] -> [heads, seq, keys]"""
    return F.embedding(buckets, table).permute(2, 0, 1)


def biased(bias: Tensor, mask: Tensor) -> Tensor:
    """bias [heads, seq, keys], mask [seq, keys] or [batch, 1, seq, keys] -> as the bias, with batch where rows are"""
    return torch.where(mask, bias, torch.finfo(bias.dtype).min)


TABLE: dict[str, Callable[..., Any]] = {
    "slopes": slopes,
    "alibi": alibi,
    "buckets": buckets,
    "relative_bias": relative_bias,
    "biased": biased,
}
