"""Biases on scores: slopes of heads (Press et al. 2022), and buckets of distances (Raffel et al. 2020, 2.1)."""

import math

import torch
from torch import Tensor


def alibi_slopes(heads: int, device: torch.device) -> Tensor:
    """-> [heads]: powers of 2 ** (-8 / n) of a power of two n; of other numbers those of the power below come first.

    Those that are missing stand between.
    """
    below = 2 ** math.floor(math.log2(heads))
    slopes = [2 ** (-8 * n / below) for n in range(1, below + 1)]
    slopes += [2 ** (-4 * n / below) for n in range(1, 2 * (heads - below), 2)]
    return torch.tensor(slopes, device=device)


def upper_alibi_slopes(heads: int, device: torch.device) -> Tensor:
    """-> [heads]: every other slope of the power of two above, then as many of the others as there are heads."""
    above = 2 ** math.ceil(math.log2(heads))
    slopes = [2 ** (-8 * n / above) for n in range(1, above + 1)]
    return torch.tensor((slopes[1::2] + slopes[::2])[:heads], device=device)


def distance_buckets(distance: Tensor, buckets: int, max_distance: int) -> Tensor:
    """distance [...] from 0 -> [...]: half of the buckets are of one distance each, the others of longer ones.

    Their widths grow by a factor; the last has all from max_distance on.
    """
    exact = buckets // 2
    steps = torch.log(distance.clamp(min=1).float() / exact) / math.log(max_distance / exact) * (buckets - exact)
    return torch.where(distance < exact, distance, (exact + steps.long()).clamp(max=buckets - 1))


def earlier_buckets(queries: Tensor, keys: Tensor, buckets: int, max_distance: int) -> Tensor:
    """positions of queries [seq], of keys [keys] -> [seq, keys] by how far the key stands before the query."""
    return distance_buckets((queries[:, None] - keys).clamp(min=0), buckets, max_distance)


def signed_buckets(queries: Tensor, keys: Tensor, buckets: int, max_distance: int) -> Tensor:
    """As earlier_buckets; half of the buckets are of keys that stand behind the query."""
    apart = keys - queries[:, None]
    return (apart > 0) * (buckets // 2) + distance_buckets(apart.abs(), buckets // 2, max_distance)
