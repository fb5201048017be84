"""Tokens go to rows sorted by expert, through linears of which each expert has its own, and back."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.collectives import exchange


def dispatch(x: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x [batch, seq, d], ids [batch, seq, top_k] -> a row for each choice, sorted by expert, the expert of each, and
    which of all choices it is."""
    owner, order = ids.flatten().sort(stable=True)
    return x.flatten(0, 1).index_select(0, order // ids.size(-1)), owner, order


def dispatch_some(x: Tensor, ids: Tensor, experts: int) -> tuple[Tensor, Tensor, Tensor]:
    """As `dispatch`, but for choices from `experts` on, which have no rows."""
    owner, order = ids.flatten().sort(stable=True)
    count = int((owner < experts).sum())
    return x.flatten(0, 1).index_select(0, order[:count] // ids.size(-1)), owner[:count], order[:count]


def weighted(rows: Tensor, gates: Tensor, order: Tensor) -> Tensor:
    """rows [slots, d] in that order of choices, times gates [batch, seq, top_k]."""
    return rows * gates.flatten()[order].unsqueeze(-1).to(rows.dtype)


def dispatch_weighted(
    x: Tensor, ids: Tensor, gates: Tensor, experts: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """As `dispatch`, or where there are experts as `dispatch_some`; rows are weighted by gates [batch, seq, top_k]."""
    rows, owner, order = dispatch(x, ids) if experts is None else dispatch_some(x, ids, experts)
    return weighted(rows, gates, order), owner, order


def grouped_linear(rows: Tensor, owner: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """rows [slots, in] of experts owner [slots], sorted; weight [experts, out, in] -> [slots, out]."""
    ends = torch.searchsorted(owner, torch.arange(len(weight), device=owner.device), right=True, out_int32=True)
    aligned = all(size * weight.element_size() % 16 == 0 for size in weight.shape[1:])
    if aligned and weight.dtype != torch.float64:  # else torch has no product of groups
        rows = F.grouped_mm(rows, weight.transpose(1, 2), offs=ends)
    else:
        parts = rows.tensor_split(ends[:-1].tolist())
        rows = torch.cat([F.linear(part, w) for part, w in zip(parts, weight, strict=True)])
    return rows if bias is None else rows + F.embedding(owner, bias)


def combine(rows: Tensor, gates: Tensor, order: Tensor) -> Tensor:
    """rows [slots, d] in that order of choices, gates [batch, seq, top_k] -> sums weighted by them [batch, seq, d]."""
    rows = torch.empty_like(rows).index_copy(0, order, rows).view(*gates.shape, -1)
    return (rows * gates.unsqueeze(-1).to(rows.dtype)).sum(-2)


def collect(rows: Tensor, ids: Tensor, order: Tensor) -> Tensor:
    """rows [slots, d] in that order of choices ids [batch, seq, top_k], of which some may have none -> sums of the rows
    of each token [batch, seq, d]."""
    return rows.new_zeros(ids.numel(), rows.size(-1)).index_copy(0, order, rows).view(*ids.shape, -1).sum(-2)


def combine_some(rows: Tensor, gates: Tensor, order: Tensor) -> Tensor:
    """As `combine`, where choices without a row give nothing."""
    return collect(weighted(rows, gates, order), gates, order)


def returned(x: Tensor, gates: Tensor, ids: Tensor, experts: int) -> Tensor:
    """x [batch, seq, d] times the gates [batch, seq, top_k] of choices ids from `experts` on."""
    return x * gates.where(ids >= experts, 0).sum(-1, keepdim=True).to(x.dtype)


def expert_bias(gates: Tensor, ids: Tensor, bias: Tensor) -> Tensor:
    """Biases [experts, d] of the experts ids [batch, seq, top_k], weighted by gates -> [batch, seq, d]."""
    return (F.embedding(ids, bias) * gates.unsqueeze(-1).to(bias.dtype)).sum(-2)


def some_bias(ids: Tensor, bias: Tensor, gates: Tensor | None = None) -> Tensor:
    """Sums of biases [experts, d] of choices ids [batch, seq, top_k] that are experts, weighted if there are gates."""
    real = ids < len(bias)
    rows = F.embedding(ids.where(real, 0), bias)
    weights = real if gates is None else gates.where(real, 0)
    return (rows * weights.unsqueeze(-1).to(bias.dtype)).sum(-2)


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
