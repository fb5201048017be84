"""Kernels of tests/ports/moe.py, and what the interpreter computes for its ops."""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.collectives import exchange


def route(logits: Tensor, top_k: int, renormalised: bool) -> tuple[Tensor, Tensor]:
    """logits [batch, seq, choices] -> weights and numbers of the chosen experts, [batch, seq, top_k]."""
    gates, ids = logits.softmax(-1).topk(top_k, dim=-1)
    return (gates / gates.sum(-1, keepdim=True) if renormalised else gates), ids


def dispatch(x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor]:
    """x [batch, seq, d], ids [batch, seq, top_k] -> a row for each choice, sorted by expert, and the expert of each."""
    owner, order = ids.flatten().sort(stable=True)
    return x.flatten(0, 1)[order // ids.size(-1)], owner


def to_experts(rows: Tensor, owner: Tensor, experts: int, ep: DeviceMesh) -> tuple[Tensor, Tensor, Tensor]:
    """rows [slots, d] of experts owner [slots], sorted, go to the ranks that hold these.

    What a rank gets is sorted by expert again. Beside it: which of the rank's own experts each row is of, and from
    which rank it came.
    """
    sent = torch.bincount(owner, minlength=experts)
    got = torch.empty_like(sent)
    dist.all_to_all_single(got, sent, group=ep.get_group())
    sent, got = sent.view(ep.size(), -1), got.view(ep.size(), -1)
    rows = exchange(rows, sent.sum(1).tolist(), got.sum(1).tolist(), ep)
    ranks, own = (torch.arange(size, device=owner.device) for size in got.shape)
    owner, order = own.repeat(ep.size()).repeat_interleave(got.flatten()).sort(stable=True)
    return rows[order], owner, ranks.repeat_interleave(got.sum(1))[order]


def from_experts(rows: Tensor, origin: Tensor, owner: Tensor, experts: int, ep: DeviceMesh) -> Tensor:
    """The way back of `to_experts`: rows and origin as it gave them, owner as it took it -> rows in that order."""
    origin, order = origin.sort(stable=True)
    sent = torch.bincount(origin, minlength=ep.size())
    got = torch.bincount(owner, minlength=experts).view(ep.size(), -1).sum(1)
    return exchange(rows[order], sent.tolist(), got.tolist(), ep)


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


def all_here(rows: Tensor, owner: Tensor, *, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """`to_experts` on one device, which has all experts."""
    return rows, owner, torch.zeros_like(owner)


FUNCTIONS = {
    "route": route,
    "dispatch": dispatch,
    "to_experts": all_here,
    "grouped_linear": grouped_linear,
    "from_experts": lambda rows, origin, owner, *, experts: rows,
    "combine": combine,
    "balance": balance,
}
