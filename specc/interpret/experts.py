"""What ops of routing and of experts compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specc.interpret.table import linear
from specc.kernels import experts, routing

SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": lambda x: x.softmax(-1),
    "sigmoid": torch.sigmoid,
    "sqrt_softplus": lambda x: F.softplus(x).sqrt(),
}


def scores(logits: Tensor, *, function: str) -> Tensor:
    """logits [..., choices] -> the same"""
    return SCORES[function](logits)


def normalise(x: Tensor, *, eps: float) -> Tensor:
    """x [..., n] -> the same"""
    return x / (x.sum(-1, keepdim=True) + eps)


def correct(scores: Tensor, correction: Tensor) -> Tensor:
    """scores [batch, seq, choices], correction [choices] -> as scores"""
    return scores.detach() + correction


def limit(scores: Tensor, *, groups: int, keep: int, best: int, fill: float | None) -> Tensor:
    """scores [batch, seq, choices] -> the same"""
    return routing.limited(scores.detach(), groups, keep, best, -math.inf if fill is None else fill)


def route(scores: Tensor, by: Tensor | None = None, *, top_k: int) -> tuple[Tensor, Tensor]:
    """scores, and what is chosen by, [batch, seq, choices] -> gates and ids [batch, seq, top_k]"""
    return routing.chosen(scores, scores if by is None else by, top_k)


def total(x: Tensor, *, tokens: int) -> Tensor:
    """x [..., n] -> without the dim of tokens"""
    return x.sum(tokens)


def expert_bias(x: Tensor, gates: Tensor, ids: Tensor, bias: Tensor) -> Tensor:
    """x [batch, seq, d], gates and ids [batch, seq, top_k], bias [experts, d] -> as x"""
    return x + experts.expert_bias(gates, ids, bias)


def all_here(rows: Tensor, owner: Tensor, *, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """`to_experts` on one device, which has all experts."""
    return rows, owner, torch.zeros_like(owner)


def stayed(rows: Tensor, origin: Tensor, owner: Tensor, *, experts: int) -> Tensor:
    """`from_experts` on one device."""
    return rows


TABLE: dict[str, Callable[..., Any]] = {
    "router": linear,
    "scores": scores,
    "correct": correct,
    "limit": limit,
    "normalise": normalise,
    "route": route,
    "usage": routing.usage,
    "total": total,
    "balance": routing.balance,
    "squares": routing.squares,
    "dispatch": experts.dispatch,
    "grouped_linear": experts.grouped_linear,
    "grouped_last": experts.grouped_linear,
    "combine": experts.combine,
    "expert_bias": expert_bias,
    "to_experts": all_here,
    "from_experts": stayed,
}
