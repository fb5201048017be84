"""Which experts tokens go to, and losses that even that out."""

import torch
import torch.nn.functional as F
from torch import Tensor


def chosen(scores: Tensor, by: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
    """Scores [batch, seq, experts] of the experts that are largest in `by`, and their numbers, [batch, seq, top_k]."""
    ids = by.topk(top_k).indices
    return scores.gather(-1, ids), ids


def limited(scores: Tensor, groups: int, keep: int, best: int, fill: float) -> Tensor:
    """scores [..., experts], which are `fill` outside of the groups whose `best` largest have the largest sums."""
    parts = scores.unflatten(-1, (groups, -1))
    ids = parts.topk(best).values.sum(-1).topk(keep).indices
    kept = torch.zeros_like(parts[..., 0], dtype=torch.bool).scatter(-1, ids, True)
    return parts.masked_fill(~kept.unsqueeze(-1), fill).flatten(-2)


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
