"""Which experts tokens go to, and losses that even that out."""

import torch.nn.functional as F
from torch import Tensor


def usage(ids: Tensor, experts: int, tokens: int) -> Tensor:
    """ids [batch, seq, top_k], of which tokens is the dim of seq -> how many go to each expert [batch, experts]."""
    return F.one_hot(ids, experts).sum((tokens, -2))


def balance(used: Tensor, likely: Tensor, top_k: int) -> Tensor:
    """How unevenly each sample uses experts (Fedus et al. 2021, eq. 4), for each of its tokens; summed over samples.

    used [batch, experts]: how many tokens go to each; likely: sums over tokens of how probable that is. A token adds
    top_k where all experts are alike.
    """
    return (used.size(-1) * top_k * (used * likely).sum(-1) / used.sum(-1)).sum()


def squares(logits: Tensor) -> Tensor:
    """logits [batch, seq, experts] -> squared logarithms of their sums of exponentials (Zoph et al. 2022), summed."""
    return logits.logsumexp(-1).square().sum()
