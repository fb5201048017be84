"""Tensors of few bits a number as tensors."""

from __future__ import annotations

import torch

VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0)
"""What 4 bits are, E2M1 of the OCP specification of microscaling formats 1.0."""
BIAS = 127
"""What the byte of a power is above it, E8M0 there."""


def mxfp4(blocks: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """[..., blocks, 16 bytes] and [..., blocks] -> [..., 32 * blocks] in bfloat16, which holds all such numbers."""
    values = torch.tensor(VALUES, dtype=torch.bfloat16)
    made = torch.empty((*blocks.shape, 2), dtype=torch.bfloat16)
    for n, part in enumerate(blocks):  # one of the outermost axis at a time: what chooses values is wider than they are
        chosen = values[torch.stack((part & 15, part >> 4), -1).int()]
        torch.ldexp(chosen, scales[n].int()[..., None, None] - BIAS, out=made[n])
    return made.flatten(-3)
