"""Rotary positions (Su et al. 2021), halves rotated against each other; tables are float32 whatever the model is."""

import torch
from torch import Tensor


def rope_table(positions: Tensor, head_dim: int, theta: float) -> Tensor:
    """positions [..., seq] -> cosines and sines [2, ..., seq, head_dim]."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.unsqueeze(-1) * (1.0 / theta**exponents)
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin()))


def llama3_rope_table(
    positions: Tensor, head_dim: int, theta: float, factor: float, low_freq: float, high_freq: float, original_seq: int
) -> Tensor:
    """positions [..., seq] -> cosines and sines [2, ..., seq, head_dim], low frequencies / factor (Llama 3.1)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    inv_freq = 1.0 / theta**exponents
    turns = original_seq / (2 * torch.pi / inv_freq)
    kept = ((turns - low_freq) / (high_freq - low_freq)).clamp(0, 1)
    angles = positions.unsqueeze(-1) * ((1 - kept) * inv_freq / factor + kept * inv_freq)
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin()))


def linear_rope_table(positions: Tensor, head_dim: int, theta: float, factor: float) -> Tensor:
    """positions [..., seq] -> cosines and sines [2, ..., seq, head_dim] of positions divided by factor."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    angles = positions.unsqueeze(-1) * (1.0 / theta**exponents / factor)
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin()))


def apply_rope(x: Tensor, rope: Tensor) -> Tensor:
    """x [batch, heads, seq, head_dim] with its halves rotated against each other by rope [2, ..., seq, head_dim]."""
    cos, sin = rope.to(x.dtype)
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin
