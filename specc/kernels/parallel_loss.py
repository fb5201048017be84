"""The loss of a language model whose vocabulary is split over a mesh axis.

Autograd would hold shifted logits and their exponentials, and add a gradient of each. Here one copy is held, and
becomes the gradient, softmax less the label's 1, where it stands (as in Shoeybi et al. 2019, section 3).
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.precision import REDUCE


class SplitCrossEntropy(Function):
    """Sum of the cross entropies at labels [batch, seq] other than -100; logits [batch, seq, vocab/tp]."""

    @staticmethod
    def forward(ctx, logits, labels, vocab, tp):
        x = logits.to(REDUCE, copy=True)
        largest = x.amax(-1, keepdim=True)
        dist.all_reduce(largest, dist.ReduceOp.MAX, tp.get_group())
        x -= largest
        real, rows = labels.ne(-100), labels - math.ceil(vocab / tp.size()) * tp.get_local_rank()
        mine = (rows >= 0) & (rows < x.size(-1))
        others = ~mine & (labels >= 0) & (labels < vocab) | ~real  # what is neither is out of bounds
        rows = rows.masked_fill(others, 0).unsqueeze(-1)
        correct = x.gather(-1, rows).squeeze(-1) * mine
        sums = torch.stack((x.exp_().sum(-1), correct))
        dist.all_reduce(sums, group=tp.get_group())
        total, correct = sums
        ctx.dtype = logits.dtype
        ctx.save_for_backward(x, total, rows, mine, real)  # x becomes the gradient, softmax less the label's 1
        return (total.log() - correct).where(real, 0).sum()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, total, rows, mine, real = ctx.saved_tensors
        x.mul_((grad * real / total).unsqueeze(-1)).scatter_add_(-1, rows, (-grad * mine).unsqueeze(-1))
        return x.to(ctx.dtype), None, None, None


split_cross_entropy = SplitCrossEntropy.apply


class SmoothSplitScores(Function):
    """Log normalisers and scores of smoothed labels, less the largest score, and that; gradients as above."""

    @staticmethod
    def forward(ctx, logits, labels, vocab, tp, smoothing):
        x = logits.to(REDUCE, copy=True)
        largest = x.amax(-1, keepdim=True)
        dist.all_reduce(largest, dist.ReduceOp.MAX, tp.get_group())
        x -= largest
        rows = labels - math.ceil(vocab / tp.size()) * tp.get_local_rank()
        mine = (rows >= 0) & (rows < x.size(-1))
        others = ~mine & (labels >= 0) & (labels < vocab) | labels.eq(-100)  # what is neither is out of bounds
        rows = rows.masked_fill(others, 0).unsqueeze(-1)
        aim = (1 - smoothing) * x.gather(-1, rows).squeeze(-1) * mine + smoothing / vocab * x.sum(-1)
        sums = torch.stack((x.exp_().sum(-1), aim))
        dist.all_reduce(sums, group=tp.get_group())
        total, aim = sums
        ctx.dtype, ctx.smoothing, ctx.vocab = logits.dtype, smoothing, vocab
        ctx.save_for_backward(x, total, rows, mine)
        ctx.mark_non_differentiable(largest)
        return total.log(), aim, largest

    @staticmethod
    @once_differentiable
    def backward(ctx, log, aim, _):
        x, total, rows, mine = ctx.saved_tensors
        x.mul_((log / total).unsqueeze(-1)).add_((ctx.smoothing / ctx.vocab * aim).unsqueeze(-1))
        x.scatter_add_(-1, rows, ((1 - ctx.smoothing) * aim * mine).unsqueeze(-1))
        return x.to(ctx.dtype), None, None, None, None


def split_cross_entropy_of(
    logits: Tensor, labels: Tensor, vocab: int, tp: DeviceMesh, smoothing: float, z_loss: float
) -> Tensor:
    """The same, where `smoothing` of each target is spread evenly, plus z_loss times the squared log normalisers."""
    log, aim, largest = SmoothSplitScores.apply(logits, labels, vocab, tp, smoothing)
    return (log - aim + z_loss * (log + largest.squeeze(-1)).square()).masked_fill(labels.eq(-100), 0).sum()
