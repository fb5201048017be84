"""The loss of a language model whose vocabulary is split over a mesh axis."""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.precision import REDUCE


def split_cross_entropy(logits: Tensor, labels: Tensor, vocab: int, tp: DeviceMesh) -> Tensor:
    """Sum of the cross entropies at labels [batch, seq] other than -100; logits [batch, seq, vocab/tp]."""
    logits = logits.to(REDUCE)
    largest = logits.detach().amax(-1)
    dist.all_reduce(largest, dist.ReduceOp.MAX, tp.get_group())
    logits = logits - largest.unsqueeze(-1)
    rows = labels - math.ceil(vocab / tp.size()) * tp.get_local_rank()
    mine = (rows >= 0) & (rows < logits.size(-1))
    others = ~mine & (labels >= 0) & (labels < vocab) | labels.eq(-100)  # what is neither raises an IndexError
    correct = logits.gather(-1, rows.masked_fill(others, 0).unsqueeze(-1)).squeeze(-1) * mine
    own = torch.stack((logits.exp().sum(-1), correct))
    whole = own.detach().clone()
    dist.all_reduce(whole, group=tp.get_group())
    total, correct = whole + (own - own.detach())  # the sum of all ranks, whose gradient each of them has whole
    return (total.log() - correct).masked_fill(labels.eq(-100), 0).sum()


def split_cross_entropy_of(
    logits: Tensor, labels: Tensor, vocab: int, tp: DeviceMesh, smoothing: float, z_loss: float
) -> Tensor:
    """The same, where `smoothing` of each target is spread evenly, plus z_loss times the squared log normalisers."""
    logits = logits.to(REDUCE)
    largest = logits.detach().amax(-1)
    dist.all_reduce(largest, dist.ReduceOp.MAX, tp.get_group())
    logits = logits - largest.unsqueeze(-1)
    rows = labels - math.ceil(vocab / tp.size()) * tp.get_local_rank()
    mine = (rows >= 0) & (rows < logits.size(-1))
    others = ~mine & (labels >= 0) & (labels < vocab) | labels.eq(-100)  # what is neither raises an IndexError
    correct = logits.gather(-1, rows.masked_fill(others, 0).unsqueeze(-1)).squeeze(-1) * mine
    own = torch.stack((logits.exp().sum(-1), correct, logits.sum(-1) / vocab))
    whole = own.detach().clone()
    dist.all_reduce(whole, group=tp.get_group())
    total, correct, mean = whole + (own - own.detach())  # the sum of all ranks, whose gradient each of them has whole
    log = total.log()
    value = log - (1 - smoothing) * correct - smoothing * mean + z_loss * (log + largest).square()
    return value.masked_fill(labels.eq(-100), 0).sum()
