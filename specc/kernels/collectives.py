"""Collectives over one mesh axis, with the gradients that SPMD types call for, and the parameters around them."""

from functools import partial

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import Placement, distribute_tensor


def gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    result = x.new_empty(len(x) * group.size(), *x.shape[1:])
    dist.all_gather_single(result, x.contiguous(), group)
    return result


def scatter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    result = x.new_empty(len(x) // group.size(), *x.shape[1:])
    dist.reduce_scatter_single(result, x.contiguous(), group=group)
    return result


def total(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    dist.all_reduce(x, group=group)
    return x


def same(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    return x.view_as(x)


class Collective(Function):
    """`there` makes outputs of inputs over some ranks, `back` gradients of gradients."""

    @staticmethod
    def forward(ctx, there, back, x, ranks):
        ctx.back, ctx.group = back, ranks.get_group()
        return there(x, ctx.group)

    @staticmethod
    def backward(ctx, grad):
        return None, None, ctx.back(grad, ctx.group), None


all_gather = partial(Collective.apply, gather, scatter)  # joins the shards of the first axis
reduce_scatter = partial(Collective.apply, scatter, gather)  # sums, and keeps this rank's shard of the first axis
all_reduce = partial(Collective.apply, total, same)  # every rank already holds the whole gradient
sum_for_shards = partial(Collective.apply, total, total)  # both: the sum is for every rank's own shard of weights
copy_to_shards = partial(Collective.apply, same, total)  # for every rank's own shard of weights: gradients are summed


class AllGatherWhole(Function):
    @staticmethod
    def forward(ctx, x, ranks):
        ctx.ranks = ranks
        return gather(x, ranks.get_group())

    @staticmethod
    def backward(ctx, grad):
        return grad.chunk(ctx.ranks.size())[ctx.ranks.get_local_rank()], None


def all_gather_whole(x: Tensor, ranks: DeviceMesh) -> Tensor:
    """Join the shards of the first axis; every rank already holds the whole gradient, and keeps its part of it."""
    return AllGatherWhole.apply(x, ranks)


def swap(x: Tensor, group: dist.ProcessGroup, sent: list[int], got: list[int]) -> Tensor:
    result = x.new_empty(sum(got), *x.shape[1:])
    dist.all_to_all_single(result, x.contiguous(), got, sent, group)
    return result


def exchange(x: Tensor, sent: list[int], got: list[int], ranks: DeviceMesh) -> Tensor:
    """Send so many rows to each rank in turn, for as many from each as `got` says; gradients go back the same way."""
    there, back = partial(swap, sent=sent, got=got), partial(swap, sent=got, got=sent)
    return Collective.apply(there, back, x, ranks)


def swap_shards(x: Tensor, whole: int, part: int, cp: DeviceMesh) -> Tensor:
    """x that has all along the dim `whole` and this rank's part along `part`, the other way round."""
    ones = [1] * cp.size()
    return torch.cat(exchange(torch.stack(x.chunk(cp.size(), whole)), ones, ones, cp).unbind(), part)


def shard(x: Tensor, dim: int, ranks: DeviceMesh) -> Tensor:
    """This rank's shard of `dim` of a replicated value whose gradient is summed elsewhere."""
    return x.chunk(ranks.size(), dim)[ranks.get_local_rank()]


def parameter(shape: tuple[int, ...], placement: Placement, ranks: DeviceMesh) -> nn.Parameter:
    """An uninitialised parameter of that full shape, placed over one axis of a mesh."""
    return nn.Parameter(distribute_tensor(torch.empty(shape), ranks, [placement], src_data_rank=None))


def spread(shape: tuple[int, ...], placements: tuple[Placement, ...], ranks: DeviceMesh) -> nn.Parameter:
    """An uninitialised parameter of that full shape, placed over several axes of a mesh."""
    return nn.Parameter(distribute_tensor(torch.empty(shape), ranks, placements, src_data_rank=None))
