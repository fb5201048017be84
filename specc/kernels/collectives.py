"""Collectives over one mesh axis, with the gradients that SPMD types call for, and the parameters around them."""

import torch
import torch.distributed._functional_collectives as fc
from torch import Tensor
from torch.autograd import Function
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Partial, Placement, distribute_tensor
from torch.nn import Parameter


def all_gather(x: Tensor, dim: int, tp: DeviceMesh) -> Tensor:
    """Join the shards of `dim`; the gradient is summed and scattered."""
    return fc.wait_tensor(fc.all_gather_single(x, dim, tp))


class AllGatherWhole(Function):
    @staticmethod
    def forward(ctx, x, dim, tp):
        ctx.dim, ctx.tp = dim, tp
        return fc.wait_tensor(fc.all_gather_single(x, dim, tp))

    @staticmethod
    def backward(ctx, grad):
        return grad.chunk(ctx.tp.size(), ctx.dim)[ctx.tp.get_local_rank()], None, None


def all_gather_whole(x: Tensor, dim: int, tp: DeviceMesh) -> Tensor:
    """Join the shards of `dim`; every rank already holds the whole gradient, and keeps its part of it."""
    return AllGatherWhole.apply(x, dim, tp)


def reduce_scatter(x: Tensor, dim: int, tp: DeviceMesh) -> Tensor:
    """Sum over tp and keep this rank's shard of `dim`; the gradient is gathered."""
    return fc.wait_tensor(fc.reduce_scatter_single(x, "sum", dim, tp))


class AllReduce(Function):
    @staticmethod
    def forward(ctx, x, tp):
        return fc.wait_tensor(fc.all_reduce(x, "sum", tp))

    @staticmethod
    def backward(ctx, grad):
        return grad, None


def all_reduce(x: Tensor, tp: DeviceMesh) -> Tensor:
    """Sum over tp; every rank already holds the whole gradient."""
    return AllReduce.apply(x, tp)


class CopyToShards(Function):
    @staticmethod
    def forward(ctx, x, tp):
        ctx.tp = tp
        return x.view_as(x)

    @staticmethod
    def backward(ctx, grad):
        return fc.wait_tensor(fc.all_reduce(grad, "sum", ctx.tp)), None


def copy_to_shards(x: Tensor, tp: DeviceMesh) -> Tensor:
    """The same value for every rank's own shard of weights; the gradient is summed over tp."""
    return CopyToShards.apply(x, tp)


def shard(x: Tensor, dim: int, tp: DeviceMesh) -> Tensor:
    """This rank's shard of `dim` of a replicated value whose gradient is summed elsewhere."""
    return x.chunk(tp.size(), dim)[tp.get_local_rank()]


def parameter(shape: tuple[int, ...], placement: Placement, tp: DeviceMesh) -> Parameter:
    """An uninitialised parameter of that full shape, placed over tp."""
    return Parameter(distribute_tensor(torch.empty(shape), tp, [placement], src_data_rank=None))


def partial_grad(p: DTensor) -> Tensor:
    """A replicated parameter that every rank applies to its own part, so its gradient is a partial sum."""
    return p.to_local(grad_placements=[Partial()])
