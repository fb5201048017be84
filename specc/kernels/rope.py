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
    inv_freq = 1.0 / theta ** (torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim)
    kept = ((original_seq / (2 * torch.pi / inv_freq) - low_freq) / (high_freq - low_freq)).clamp(0, 1)  # by its turns
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


def rotations(positions: Tensor, inv_freq: Tensor) -> Tensor:
    """positions [..., seq], frequencies [pairs] -> cosines and sines [2, ..., seq, 2*pairs]."""
    angles = positions.unsqueeze(-1) * inv_freq
    angles = torch.cat((angles, angles), dim=-1)
    return torch.stack((angles.cos(), angles.sin()))


def yarn_rope_table(
    positions: Tensor, head_dim: int, theta: float, factor: float, low: float, high: float, amplitude: float
) -> Tensor:
    """positions [..., seq] -> cosines and sines [2, ..., seq, head_dim] (Peng et al. 2023).

    Frequencies of pairs up to `low` are kept, from `high` on divided by factor.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    pairs = torch.arange(head_dim // 2, dtype=torch.float32, device=positions.device)
    kept = 1 - ((pairs - low) / (high - low)).clamp(0, 1)
    wavelengths = theta**exponents
    return rotations(positions, 1.0 / (factor * wavelengths) * (1 - kept) + 1.0 / wavelengths * kept) * amplitude


def dynamic_rope_table(positions: Tensor, head_dim: int, theta: float, factor: float, original_seq: int) -> Tensor:
    """positions [..., seq] -> cosines and sines [2, ..., seq, head_dim]; beyond original_seq tokens the base grows."""
    longer = factor * max(positions.size(-1), original_seq) / original_seq - (factor - 1)
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    return rotations(positions, 1.0 / (theta * longer ** (head_dim / (head_dim - 2))) ** exponents)


def longrope_rope_table(
    positions: Tensor,
    head_dim: int,
    theta: float,
    original_seq: int,
    amplitude: float,
    short: tuple[float, ...],
    long: tuple[float, ...],
) -> Tensor:
    """positions [..., seq] -> cosines and sines [2, ..., seq, head_dim], each frequency divided (Ding et al. 2024)."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    divisors = torch.tensor(short if positions.size(-1) <= original_seq else long, device=positions.device)
    return rotations(positions, 1.0 / (divisors.float() * theta**exponents)) * amplitude


def proportional_rope_table(positions: Tensor, head_dim: int, theta: float, factor: float, pairs: int) -> Tensor:
    """positions [..., seq] -> cosines and sines [2, ..., seq, head_dim]; all but the first pairs stand still."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=positions.device) / head_dim
    turning = torch.arange(head_dim // 2, device=positions.device) < pairs
    return rotations(positions, turning / theta**exponents / factor)


def apply_adjacent_rope(x: Tensor, rope: Tensor) -> Tensor:
    """x [batch, heads, seq, head_dim] with neighbours rotated against each other by rope [2, ..., seq, head_dim]."""
    cos, sin = rope.to(x.dtype)[..., : x.size(-1) // 2]
    a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack((a * cos - b * sin, b * cos + a * sin), dim=-1).flatten(-2)


def apply_partial_rope(x: Tensor, rope: Tensor) -> Tensor:
    """x [batch, heads, seq, head_dim] with its first features rotated, as many as rope [2, ..., seq, dim] has."""
    turned, kept = x.tensor_split((rope.size(-1),), dim=-1)
    return torch.cat((apply_rope(turned, rope), kept), dim=-1)


def apply_partial_adjacent_rope(x: Tensor, rope: Tensor) -> Tensor:
    """x [batch, heads, seq, head_dim] with its first features rotated, as many as rope [2, ..., seq, dim] has."""
    turned, kept = x.tensor_split((rope.size(-1),), dim=-1)
    return torch.cat((apply_adjacent_rope(turned, rope), kept), dim=-1)
