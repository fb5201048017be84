"""Collectives over one mesh axis, with the gradients that SPMD types call for, and the parameters around them."""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.autograd import Function
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, distribute_tensor
from torch.nn import Parameter


def gather(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    result = x.new_empty(len(x) * group.size(), *x.shape[1:])
    dist.all_gather_single(result, x.contiguous(), group)
    return result


def scatter(x: Tensor, group: dist.ProcessGroup) -> Tensor:
    result = x.new_empty(len(x) // group.size(), *x.shape[1:])
    dist.reduce_scatter_single(result, x.contiguous(), group=group)
    return result


class AllGather(Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return gather(x, group)

    @staticmethod
    def backward(ctx, grad):
        return scatter(grad, ctx.group), None


def all_gather(x: Tensor, tp: DeviceMesh) -> Tensor:
    """Join the shards of the first axis; the gradient is summed and scattered."""
    return AllGather.apply(x, tp.get_group())


class ReduceScatter(Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return scatter(x, group)

    @staticmethod
    def backward(ctx, grad):
        return gather(grad, ctx.group), None


class AllGatherWhole(Function):
    @staticmethod
    def forward(ctx, x, tp):
        ctx.tp = tp
        return gather(x, tp.get_group())

    @staticmethod
    def backward(ctx, grad):
        return grad.chunk(ctx.tp.size())[ctx.tp.get_local_rank()], None


def all_gather_whole(x: Tensor, tp: DeviceMesh) -> Tensor:
    """Join the shards of the first axis; every rank already holds the whole gradient, and keeps its part of it."""
    return AllGatherWhole.apply(x, tp)


def reduce_scatter(x: Tensor, tp: DeviceMesh) -> Tensor:
    """Sum over tp and keep this rank's shard of the first axis; the gradient is gathered."""
    return ReduceScatter.apply(x, tp.get_group())


class AllReduce(Function):
    @staticmethod
    def forward(ctx, x, group):
        x = x.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(x, group=group)
        return x

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def all_reduce(x: Tensor, tp: DeviceMesh) -> Tensor:
    """Sum over tp; every rank already holds the whole gradient."""
    return AllReduce.apply(x, tp.get_group())


class CopyToShards(Function):
    @staticmethod
    def forward(ctx, x, group):
        ctx.group = group
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        grad = grad.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(grad, group=ctx.group)
        return grad, None


def copy_to_shards(x: Tensor, tp: DeviceMesh) -> Tensor:
    """The same value for every rank's own shard of weights; the gradient is summed over tp."""
    return CopyToShards.apply(x, tp.get_group())


def shard(x: Tensor, dim: int, tp: DeviceMesh) -> Tensor:
    """This rank's shard of `dim` of a replicated value whose gradient is summed elsewhere."""
    return x.chunk(tp.size(), dim)[tp.get_local_rank()]


def parameter(shape: tuple[int, ...], placement: Placement, tp: DeviceMesh) -> Parameter:
    """An uninitialised parameter of that full shape, placed over tp."""
    return Parameter(distribute_tensor(torch.empty(shape), tp, [placement], src_data_rank=None))


def partial_grad(p: DTensor) -> Tensor:
    """A replicated parameter that every rank applies to its own part, so its gradient is a partial sum."""
    return p.to_local(grad_placements=[Partial()])
