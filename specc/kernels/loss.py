"""The loss of a language model, with smoothed labels (Szegedy et al. 2016, 7) and a small normaliser (PaLM 2022, 5)."""

import torch.nn.functional as F
from torch import Tensor

from specc.kernels.precision import REDUCE


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross entropies at labels [batch, seq] other than -100; logits [batch, seq, vocab]."""
    logits = logits.to(REDUCE)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="sum")


def class_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross entropies at labels [batch] other than -100; logits [batch, classes]."""
    return F.cross_entropy(logits.to(REDUCE), labels, reduction="sum")


def squared_error(x: Tensor, targets: Tensor) -> Tensor:
    """Sum of the squared differences; a target that is no number counts nothing."""
    real = ~targets.isnan()
    return (x.to(REDUCE) - targets.to(REDUCE)).where(real, 0).square().sum()


def cross_entropy_of(logits: Tensor, labels: Tensor, smoothing: float, z_loss: float) -> Tensor:
    """The same, where `smoothing` of each target is spread evenly, plus z_loss times the squared log normalisers."""
    logits = logits.to(REDUCE)
    real = labels.ne(-100)
    total = logits.logsumexp(-1)
    correct = logits.gather(-1, labels.where(real, 0).unsqueeze(-1)).squeeze(-1)
    aim = (1 - smoothing) * correct + smoothing * logits.mean(-1)
    return (total - aim + z_loss * total.square()).where(real, 0).sum()
