"""The loss of a language model."""

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Sum of the cross entropies at labels [batch, seq] other than -100; logits [batch, seq, vocab]."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return F.cross_entropy(logits.flatten(0, 1), labels.flatten(0, 1), reduction="sum")
