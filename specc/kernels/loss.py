"""The loss of a language model, with smoothed labels (Szegedy et al. 2016, 7) and a small normaliser (PaLM 2022, 5).

In REDUCE, or in float64 where logits are.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from specc.kernels.precision import REDUCE


class CrossEntropy(Function):
    """Sum of the cross entropies at labels [...] other than -100; logits [..., vocab].

    The gradient, softmax less the label's 1, is made in the log probabilities that are saved.
    """

    @staticmethod
    def forward(ctx, logits, labels):
        logs = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, REDUCE))
        ctx.dtype = logits.dtype
        ctx.save_for_backward(logs, labels)
        return F.nll_loss(logs.flatten(0, -2), labels.flatten(), reduction="sum")

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        logs, labels = ctx.saved_tensors
        real = labels.ne(-100)
        grad = (grad * real).unsqueeze(-1)
        logs.exp_().mul_(grad).scatter_add_(-1, labels.where(real, 0).unsqueeze(-1), -grad)
        return logs.to(ctx.dtype), None


cross_entropy = CrossEntropy.apply


def squared_error(x: Tensor, targets: Tensor) -> Tensor:
    """Sum of the squared differences; a target that is no number counts nothing."""
    real = ~targets.isnan()
    return (x.to(REDUCE) - targets.to(REDUCE)).where(real, 0).square().sum()


class SmoothScores(Function):
    """Log normalisers, and log probabilities of smoothed labels; of gradients as CrossEntropy."""

    @staticmethod
    def forward(ctx, logits, columns, smoothing):
        logs = logits.log_softmax(-1, dtype=torch.promote_types(logits.dtype, REDUCE))
        ctx.dtype, ctx.smoothing = logits.dtype, smoothing
        ctx.save_for_backward(logs, columns)
        aim = (1 - smoothing) * logs.gather(-1, columns).squeeze(-1) + smoothing * logs.mean(-1)
        return logits.amax(-1).to(logs.dtype) - logs.amax(-1), aim

    @staticmethod
    @once_differentiable
    def backward(ctx, total, aim):
        logs, columns = ctx.saved_tensors
        logs.exp_().mul_((total - aim).unsqueeze(-1)).add_((ctx.smoothing / logs.size(-1) * aim).unsqueeze(-1))
        logs.scatter_add_(-1, columns, ((1 - ctx.smoothing) * aim).unsqueeze(-1))
        return logs.to(ctx.dtype), None, None


def cross_entropy_of(logits: Tensor, labels: Tensor, smoothing: float, z_loss: float) -> Tensor:
    """The same, where `smoothing` of each target is spread evenly, plus z_loss times the squared log normalisers."""
    real = labels.ne(-100)
    total, aim = SmoothScores.apply(logits, labels.where(real, 0).unsqueeze(-1), smoothing)
    return (z_loss * total.square() - aim).where(real, 0).sum()
