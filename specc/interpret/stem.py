"""How images are taken apart, and what stands in front of their patches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def patches(images: Tensor, *, patch: int, axes: tuple[object, ...], first: str = "batch") -> Tensor:
    """images [batch, channels, height, width] -> [batch, seq, channels * patch * patch], or tokens first"""
    return _turned(F.unfold(images, patch, stride=patch), first)


def _turned(x: Tensor, first: str) -> Tensor:
    """x [batch, features, seq] -> [batch, seq, features], or tokens first"""
    return x.permute(2, 0, 1) if first == "tokens" else x.transpose(1, 2)


def own_tokens(x: Tensor, own: Tensor, *, at: int) -> Tensor:
    """x [batch, seq, d_model], own [count, d_model] -> [batch, seq + count, d_model]"""
    rows = own.expand(len(x), -1, -1)
    return torch.cat((x[:, :at], rows, x[:, at:]), 1)


def time_conv(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int, padding: int) -> Tensor:
    """x [batch, channels, time] -> [batch, d_model, time / stride]"""
    return F.conv1d(x, weight, bias, stride, padding)


def time_last(x: Tensor, *, axes: tuple[object, ...], first: str = "batch") -> Tensor:
    """x [batch, d_model, time] -> [batch, seq, d_model], or tokens first"""
    return _turned(x, first).contiguous()


TABLE: dict[str, Callable[..., Any]] = {
    "patches": patches,
    "own_tokens": own_tokens,
    "time_conv": time_conv,
    "time_last": time_last,
}
