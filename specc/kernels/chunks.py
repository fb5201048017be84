"""Sequences in chunks: which positions of one see each other, and which see what came before it."""

import torch
import torch.nn.functional as F
from torch import Tensor


def chunked(x: Tensor, size: int) -> Tensor:
    """x [batch, heads, seq, features] -> [batch, heads, chunks, size, features], filled up with zeros."""
    return F.pad(x, (0, 0, 0, -x.size(2) % size)).unflatten(2, (-1, size))


def chunk_masks(seq: int, size: int, like: Tensor, first: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """Of the positions of each chunk: which see which [batch, 1, chunks, size, size], whose document begins in it, and
    whose goes on behind it [batch, 1, chunks, size].

    first [batch, seq] is where the document of each position starts; without it a row is one, and dims of 1 are not
    there.
    """
    index = torch.arange(seq + -seq % size, device=like.device).view(-1, size)
    seen = index.unsqueeze(-1) >= index.unsqueeze(-2)
    if first is None:
        none = torch.zeros_like(index, dtype=torch.bool)
        return seen, none, ~none
    starts = F.pad(first, (0, -seq % size)).unflatten(1, (-1, size)).unsqueeze(1)
    return seen & (index.unsqueeze(-2) >= starts.unsqueeze(-1)), starts >= index[:, :1], index >= starts[..., -1:]
