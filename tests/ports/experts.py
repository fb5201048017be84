"""Kernels of tests/ports/moe.py, and what the interpreter computes for its ops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def route(logits: Tensor, top_k: int, renormalised: bool) -> tuple[Tensor, Tensor]:
    """logits [batch, seq, choices] -> weights and numbers of the chosen experts, [batch, seq, top_k]."""
    gates, ids = logits.softmax(-1).topk(top_k, dim=-1)
    return (gates / gates.sum(-1, keepdim=True) if renormalised else gates), ids


def dispatch(x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """x [batch, seq, d], ids [batch, seq, top_k] -> a row for each choice, sorted by expert, and the expert of each."""
    owner, order = ids.flatten().sort(stable=True)
    return x.flatten(0, 1)[order // ids.size(-1)], owner


def grouped_linear(rows: Tensor, owner: Tensor, weight: Tensor) -> Tensor:
    """rows [slots, in] of experts owner [slots], sorted; weight [experts, out, in] -> [slots, out]."""
    counts = torch.bincount(owner, minlength=len(weight)).tolist()
    return torch.cat([F.linear(part, w) for part, w in zip(rows.split(counts), weight, strict=True)])


def combine(rows: Tensor, gates: Tensor, ids: Tensor) -> Tensor:
    """rows [slots, d] as dispatched -> [batch, seq, d], the weighted sum of each token's."""
    order = ids.flatten().argsort(stable=True)
    rows = rows * gates.flatten()[order, None]
    sums = rows.new_zeros(gates[..., 0].numel(), rows.size(-1)).index_add(0, order // ids.size(-1), rows)
    return sums.view(*ids.shape[:2], -1)


def balance(logits: Tensor, ids: Tensor) -> Tensor:
    """Of each sequence how often experts are chosen times how probable they are; summed. Scale one if all are alike."""
    experts, choices = logits.size(-1), ids.size(1) * ids.size(2)
    used = F.one_hot(ids, experts).sum((1, 2)) * (experts / choices)
    return (used * logits.softmax(-1).mean(1)).sum()


FUNCTIONS = {
    "route": route,
    "dispatch": dispatch,
    "grouped_linear": grouped_linear,
    "combine": combine,
    "balance": balance,
}
