"""One vector of each row, where some tokens of it are padding; of a row of nothing else a zero, or its first token."""

import torch
from torch import Tensor


def first_real(x: Tensor, real: Tensor) -> Tensor:
    """x [batch, seq, d_model], real [batch, seq] -> the first real token [batch, d_model]."""
    return x[torch.arange(len(x), device=x.device), real.int().argmax(1)]


def last_real(x: Tensor, real: Tensor) -> Tensor:
    """x [batch, seq, d_model], real [batch, seq] -> the last real token [batch, d_model]."""
    places = torch.arange(real.size(1), device=x.device)
    return x[torch.arange(len(x), device=x.device), (places * real).argmax(1)]


def mean_real(x: Tensor, real: Tensor) -> Tensor:
    """x [batch, seq, d_model], real [batch, seq] -> the mean of real tokens [batch, d_model]."""
    return x.where(real.unsqueeze(-1), 0).sum(1) / real.sum(1, keepdim=True).clamp(min=1)


def max_real(x: Tensor, real: Tensor) -> Tensor:
    """x [batch, seq, d_model], real [batch, seq] -> the largest of each feature of real tokens [batch, d_model]."""
    return x.where(real.unsqueeze(-1), -torch.inf).amax(1).where(real.any(1, keepdim=True), 0)
