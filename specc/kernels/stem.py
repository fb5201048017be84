"""Vectors of a model among the tokens of every sample."""

import torch
from torch import Tensor


def with_tokens(x: Tensor, own: Tensor, at: int, dim: int) -> Tensor:
    """x, whose tokens are `dim` 0 or 1, with all of own [count, d_model] in front of its token of number `at`."""
    rows = own.expand(len(x), -1, -1) if dim else own[:, None].expand(-1, x.size(1), -1)
    return torch.cat((x.narrow(dim, 0, at), rows, x.narrow(dim, at, x.size(dim) - at)), dim)
