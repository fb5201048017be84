"""The loss of a language model."""

import torch.nn.functional as F
from torch import Tensor

from specc.kernels.precision import REDUCE


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross entropies at labels [batch, seq] other than -100; logits [batch, seq, vocab]."""
    logits = logits.to(REDUCE)
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="sum")
