"""Kernels of tests/toy.py, and what the interpreter computes for its ops."""

from __future__ import annotations

import torch
from torch import Tensor

HALF = 0.5


def soft_cap(x: Tensor, cap: float) -> Tensor:
    """Elements of x [...] bent to stay below the cap (Bello et al. 2016), half of each left as it is."""
    return HALF * x + HALF * cap * torch.tanh(x / cap)


def gain(x: Tensor, weight: Tensor) -> Tensor:
    """x [..., width], weight [width] -> as x"""
    return x * (1 + weight)


FUNCTIONS = {"gain": gain, "soft_cap": soft_cap}
