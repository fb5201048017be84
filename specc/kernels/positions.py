"""Positions: documents of a row, and sinusoids (Vaswani et al. 2017, 3.5)."""

import torch
import torch.nn.functional as F
from torch import Tensor


def document_starts(segments: Tensor) -> Tensor:
    """segments [batch, seq], documents as runs of equal numbers -> index of the first token of each token's own."""
    index = torch.arange(segments.size(1), device=segments.device)
    starts = F.pad(segments.diff(dim=1).ne(0), (1, 0), value=True)
    return index.where(starts, 0).cummax(1).values


def tokens_ahead(ids: Tensor) -> Tensor:
    """Numbers [batch, seq] -> those one place on; the last is 0."""
    return F.pad(ids[:, 1:], (0, 1))


def labels_ahead(labels: Tensor, first: Tensor) -> Tensor:
    """Labels [batch, seq] -> those one place on, as far as the first ones are none of -100; else -100."""
    return F.pad(labels[:, 1:], (0, 1), value=-100).where(first.ne(-100), -100)


def real_positions(real: Tensor) -> Tensor:
    """real [batch, seq], which tokens are no padding -> places of tokens among these; padding has -1."""
    return real.cumsum(1) * real - 1


def sinusoid(positions: Tensor, d_model: int) -> Tensor:
    """positions [..., seq] -> sines and cosines in turn [..., seq, d_model], float32."""
    exponents = torch.arange(0, d_model, 2, dtype=torch.float32, device=positions.device) / d_model
    angles = positions.unsqueeze(-1) / 10000**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)


def sinusoid_of(positions: Tensor, d_model: int, steps: int, dim: int) -> Tensor:
    """positions [..., seq] -> sines and cosines in turn (dim -1), or all sines first (dim -2) [..., seq, d_model].

    Wavelengths grow to 10000 turns in `steps`; float32.
    """
    exponents = torch.arange(d_model // 2, dtype=torch.float32, device=positions.device) / steps
    angles = positions.unsqueeze(-1) / 10000**exponents
    return torch.stack((angles.sin(), angles.cos()), dim=dim).flatten(-2)
