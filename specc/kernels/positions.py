"""Sinusoidal positions (Vaswani et al. 2017, 3.5)."""

import torch
from torch import Tensor


def sinusoid(positions: Tensor, d_model: int) -> Tensor:
    """positions [seq] -> sines and cosines in turn [seq, d_model], float32."""
    exponents = torch.arange(0, d_model, 2, dtype=torch.float32, device=positions.device) / d_model
    angles = positions[:, None] / 10000**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)
