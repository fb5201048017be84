"""What heads compute that make one vector of a row, and the loss of vectors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from specc.kernels import pool as kernels


def pool(x: Tensor, real: Tensor | None = None, *, how: str) -> Tensor:
    """x [batch, seq, d_model], real [batch, seq] -> [batch, d_model]"""
    if real is None:
        whole: dict[str, Callable[[], Tensor]] = {
            "first": lambda: x[:, 0],
            "last": lambda: x[:, -1],
            "mean": lambda: x.mean(1),
            "max": lambda: x.amax(1),
        }
        return whole[how]()
    return getattr(kernels, f"{how}_real")(x, real)


def squared_error(x: Tensor, targets: Tensor) -> Tensor:
    """x and targets of one shape -> the sum of their squared differences; a target that is no number counts nothing"""
    real = ~targets.isnan()
    return (x - targets.where(real, 0)).square().masked_fill(~real, 0).sum()


def token_is(ids: Tensor, *, token: int) -> Tensor:
    """ids [batch, seq] -> which are that token [batch, seq]"""
    return torch.eq(ids, token)


TABLE: dict[str, Callable[..., Any]] = {"pool": pool, "squared_error": squared_error, "token_is": token_is}
