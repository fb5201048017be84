"""What the ops of differential.py compute."""

from __future__ import annotations

from torch import Tensor


def differ(x: Tensor, y: Tensor, q1: Tensor, k1: Tensor, q2: Tensor, k2: Tensor, start: float) -> Tensor:
    """x - factor * y, both [batch, heads, seq, features]; of vectors [head_dim] the factor (Ye et al. 2024, 2.1)."""
    return x - ((q1 * k1).sum().exp() - (q2 * k2).sum().exp() + start) * y


FUNCTIONS = {"differ": differ}
