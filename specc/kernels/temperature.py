"""Queries that grow with the log of their position; factors are float32 whatever the model is."""

from torch import Tensor


def temperatures(positions: Tensor, floor: int, scale: float, offset: int) -> Tensor:
    """positions [..., seq] -> 1 + scale * log(1 + floor((position + offset) / floor)) [..., seq, 1]."""
    steps = ((positions.float() + offset) / floor).floor()
    return (steps.log1p() * scale + 1).unsqueeze(-1)


def apply_temperature(x: Tensor, temperature: Tensor) -> Tensor:
    """x [batch, heads, seq, head_dim] times a factor of each position [..., seq, 1]."""
    return x * temperature.to(x.dtype)
