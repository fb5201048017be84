"""How parameters start that have a meaning, or are not drawn from a normal: 16 rows at a time."""

import math

import torch
from torch import Tensor


def log_rows(generator: torch.Generator, block: int, shape: torch.Size) -> Tensor:
    """The logs of 1, 2, 3 and so on (Dao and Gu 2024)."""
    return torch.arange(16 * block + 1, 16 * block + 17, dtype=torch.float32).log()


def log_columns(generator: torch.Generator, block: int, shape: torch.Size) -> Tensor:
    """The logs of 1, 2, 3 and so on along the last axis (Gu and Dao 2023)."""
    return torch.arange(1, shape[-1] + 1, dtype=torch.float32).log().expand(16, -1)


def slow_decay(generator: torch.Generator, block: int, shape: torch.Size) -> Tensor:
    """What softplus makes rates of, so that a state decays by 0.9 to 0.999 at most (De et al. 2024, section 2.4)."""
    squares = 0.9**2 + (0.999**2 - 0.9**2) * torch.rand(16, *shape[1:], generator=generator, dtype=torch.float32)
    return (squares.sqrt().log() / -8).expm1().log()


def small_steps(generator: torch.Generator, block: int, shape: torch.Size) -> Tensor:
    """What softplus makes steps of, log-uniform between 0.001 and 0.1 (Gu and Dao 2023, section 3.6)."""
    steps = 0.001 * 100 ** torch.rand(16, *shape[1:], generator=generator, dtype=torch.float32)
    return steps + (-(-steps).expm1()).log()


def uniform(generator: torch.Generator, shape: torch.Size, bound: float) -> Tensor:
    """Between the bound and its negative."""
    return (torch.rand(16, *shape[1:], generator=generator, dtype=torch.float32) * 2 - 1) * bound


def truncated(generator: torch.Generator, shape: torch.Size, std: float, cut: float) -> Tensor:
    """Normal, within `cut` std of zero: what its distribution function makes of uniform numbers."""
    even = torch.rand(16, *shape[1:], generator=generator, dtype=torch.float32) * 2 - 1
    return torch.erfinv(even * math.erf(cut / 2**0.5)) * (std * 2**0.5)
