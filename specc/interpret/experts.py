"""What ops of routing and of experts compute."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from specc.interpret.table import linear, softcap
from specc.kernels import experts as kernels
from specc.kernels import routing

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


def expert_scale(gates: Tensor, ids: Tensor, weight: Tensor) -> Tensor:
    """gates and ids [batch, seq, top_k], weight [choices] -> as gates"""
    return gates * weight[ids]


def dispatch(
    x: Tensor, ids: Tensor, gates: Tensor | None = None, *, experts: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """x [batch, seq, d], ids and gates [batch, seq, top_k] -> rows [slots, d], owner and order [slots]"""
    if gates is not None:
        return kernels.dispatch_weighted(x, ids, gates, experts)
    return kernels.dispatch(x, ids) if experts is None else kernels.dispatch_some(x, ids, experts)


def expert_bias(x: Tensor, gates: Tensor, ids: Tensor, bias: Tensor) -> Tensor:
    """x [batch, seq, d], gates and ids [batch, seq, top_k], bias [experts, d] -> as x"""
    return x + kernels.expert_bias(gates, ids, bias)


def some_bias(x: Tensor, ids: Tensor, *operands: Tensor) -> Tensor:
    """x [batch, seq, d], ids and gates if they count [batch, seq, top_k], bias [experts, d] -> as x"""
    *gates, bias = operands
    return x + kernels.some_bias(ids, bias, *gates)


def all_here(rows: Tensor, owner: Tensor, *, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """`to_experts` on one device, which has all experts."""
    return rows, owner, torch.zeros_like(owner)


def stayed(rows: Tensor, origin: Tensor, owner: Tensor, *, experts: int) -> Tensor:
    """`from_experts` on one device."""
    return rows


TABLE: dict[str, Callable[..., Any]] = {
    "router": linear,
    "logit_cap": softcap,
    "scores": scores,
    "correct": correct,
    "limit": limit,
    "normalise": normalise,
    "route": route,
    "expert_scale": expert_scale,
    "usage": routing.usage,
    "total": total,
    "balance": routing.balance,
    "squares": routing.squares,
    "dispatch": dispatch,
    "grouped_linear": kernels.grouped_linear,
    "grouped_last": kernels.grouped_linear,
    "combine": kernels.combine,
    "combine_some": kernels.combine_some,
    "collect": kernels.collect,
    "returned": kernels.returned,
    "expert_bias": expert_bias,
    "some_bias": some_bias,
    "to_experts": all_here,
    "from_experts": stayed,
}
