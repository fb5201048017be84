"""Activations that torch has no function for."""

import torch
import torch.nn.functional as F
from torch import Tensor


def quick_gelu(x: Tensor) -> Tensor:
    """x [...] -> x * sigmoid(1.702 x) (Hendrycks and Gimpel 2016)."""
    return x * torch.sigmoid(1.702 * x)


def xielu(x: Tensor, alpha_p: Tensor, alpha_n: Tensor) -> Tensor:
    """x [...], learned numbers [1] -> as x; the gradient is linear above 0, exponential below (Huang et al. 2024)."""
    above = F.softplus(alpha_p) * x * x
    below = (0.5 + F.softplus(alpha_n)) * (torch.expm1(x.clamp(max=-1e-6)) - x)
    return torch.where(x > 0, above, below) + 0.5 * x
