"""Attention masks."""

from torch import Tensor


def causal(mask: Tensor) -> Tensor:
    """mask [batch, 1, 1, seq] of keys that may be seen -> [batch, 1, seq, seq] that also hides later ones."""
    return mask & mask.new_ones(mask.size(-1), mask.size(-1)).tril()
