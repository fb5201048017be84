"""Kernels of tests/terms.py, and what the interpreter computes for its ops."""

from __future__ import annotations

from torch import Tensor


def evenness(x: Tensor) -> Tensor:
    """x [batch, seq, choices] -> [], of each sample how unlike the means of its choices are, summed over samples."""
    return x.softmax(-1).mean(1).square().sum()


FUNCTIONS = {"evenness": evenness}
