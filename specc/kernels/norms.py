"""Norms of features that ranks share: what all of them have together is summed up."""

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.collectives import all_reduce, copy_to_shards


def mean_over(x: Tensor, ranks: DeviceMesh) -> Tensor:
    """x [..., features/ranks] -> the mean of all features [..., 1]."""
    return copy_to_shards(all_reduce(x.mean(-1, keepdim=True), ranks), ranks) / ranks.size()


def split_rms_norm(x: Tensor, eps: float, ranks: DeviceMesh) -> Tensor:
    """x [..., features/ranks] over the root mean square of all features."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return (wide * (mean_over(wide.square(), ranks) + eps).rsqrt()).to(x.dtype)


def split_layer_norm(x: Tensor, eps: float, ranks: DeviceMesh) -> Tensor:
    """x [..., features/ranks] less the mean, over the deviation of all features."""
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    return split_rms_norm(wide - mean_over(wide, ranks), eps, ranks).to(x.dtype)
