"""Kernels on real ranks: gradients of the collectives, the split loss, random numbers."""

import os
import select
import subprocess
import sys
import time

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from specc.kernels import parallel_loss
from specc.kernels.collectives import (
    all_gather,
    all_reduce,
    copy_to_shards,
    parameter,
    reduce_scatter,
    shard,
)
from specc.kernels.parallel_loss import split_cross_entropy, split_cross_entropy_of
from specc.kernels.random import own_random
from specc.verify.launch import RankError, run_ranks
from tests.comm import fake_group

WORLDS = (2, 4)


@pytest.fixture(autouse=True)
def double():
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def mesh(world: int) -> DeviceMesh:
    return init_device_mesh("cpu", (world,), mesh_dim_names=("tp",))


def part(x: Tensor, dim: int, tp: DeviceMesh) -> Tensor:
    return x.chunk(tp.size(), dim)[tp.get_local_rank()]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def worst(pairs: list[tuple[Tensor, Tensor]]) -> float:
    """Largest difference; NaN if there is any."""
    return torch.stack([(a - b).abs().max() for a, b in pairs]).max().item()


def column_then_row(world: int, sequence_parallel: bool, dim: int) -> float:
    """norm -> column linear -> row linear as a tensor-parallel file does it, against plain tensors."""
    tp = mesh(world)
    weight, up, down = noise(8, seed=1), noise(12, 8, seed=2), noise(8, 12, seed=3)
    x, out_grad = noise(4, 8, 8, seed=4), noise(4, 8, 8, seed=5)

    def plain(x: Tensor, weight: Tensor, up: Tensor, down: Tensor) -> Tensor:
        return F.linear(F.linear(F.rms_norm(x, (8,), weight), up).tanh(), down)

    whole = [t.clone().requires_grad_() for t in (x, weight, up, down)]
    expected = plain(*whole)
    expected.backward(out_grad)

    placements = (Replicate(), Shard(0), Shard(1))
    params = [parameter(tuple(t.shape), p, tp) for t, p in zip((weight, up, down), placements, strict=True)]
    with torch.no_grad():
        params[0].to_local().copy_(weight)
        params[1].to_local().copy_(part(up, 0, tp))
        params[2].to_local().copy_(part(down, 1, tp))
    own = (part(x, dim, tp) if sequence_parallel else x).clone().requires_grad_()
    if sequence_parallel:
        y = all_gather(F.rms_norm(own, (8,), params[0].to_local(grad_placements=[Partial()])), tp)
        y = reduce_scatter(F.linear(F.linear(y, params[1].to_local()).tanh(), params[2].to_local()), tp)
        y.backward(part(out_grad, dim, tp))
    else:
        y = copy_to_shards(F.rms_norm(own, (8,), params[0].to_local()), tp)
        y = all_reduce(F.linear(F.linear(y, params[1].to_local()).tanh(), params[2].to_local()), tp)
        y.backward(out_grad)

    def cut(full: Tensor) -> Tensor:
        return part(full, dim, tp) if sequence_parallel else full

    grads = [p.grad.full_tensor() for p in params]
    wanted = [p.grad for p in whole[1:]]
    return worst([(y, cut(expected)), (own.grad, cut(whole[0].grad)), *zip(grads, wanted, strict=True)])


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize(("sequence_parallel", "dim"), [(False, 0), (True, 0)])
def test_collectives_give_the_plain_gradients(world, sequence_parallel, dim):
    errors = run_ranks(world, column_then_row, world, sequence_parallel, dim)
    assert all(error < 1e-13 for error in errors)


def sharded_replicated(world: int) -> float:
    """Each rank uses its rows of a replicated value: the partial gradients sum to that of the whole."""
    tp = mesh(world)
    x, factor = noise(3, 8, seed=1).requires_grad_(), noise(3, 8, seed=2)
    (shard(x, 1, tp) * part(factor, 1, tp)).sum().backward()
    return worst([(all_reduce(x.grad, tp), factor)])


@pytest.mark.parametrize("world", WORLDS)
def test_shard_leaves_a_partial_gradient(world):
    assert all(error == 0 for error in run_ranks(world, sharded_replicated, world))


class Count(TorchDispatchMode):
    """Counts ops by a part of their name, and bytes that are alive after them."""

    def __init__(self, *names: str):
        super().__init__()
        self.counts = dict.fromkeys(names, 0)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        for name in self.counts:
            self.counts[name] += name in str(op)
        return op(*args, **(kwargs or {}))


def split_loss(world: int, vocab: int, changed: tuple[float, float] | None = None) -> tuple[float, int]:
    parallel_loss.REDUCE = torch.float64  # of this process
    tp = mesh(world)
    logits, scale = noise(2, 5, vocab, seed=1) * 30, torch.tensor(0.3)
    labels = torch.randint(vocab, (2, 5), generator=torch.Generator().manual_seed(2))
    labels[0, 1] = labels[1, 4] = -100
    whole = logits.clone().requires_grad_()
    smoothing, z_loss = changed or (0.0, 0.0)
    flat = whole.flatten(0, 1)
    expected = F.cross_entropy(flat, labels.flatten(), reduction="sum", label_smoothing=smoothing)
    expected = (expected + z_loss * flat.logsumexp(-1).square()[labels.flatten() != -100].sum()) * scale
    expected.backward()
    own = part(logits, -1, tp).clone().requires_grad_()
    with Count("c10d.allreduce") as count:
        if changed is None:
            found = split_cross_entropy(own, labels, vocab, tp) * scale
        else:
            found = split_cross_entropy_of(own, labels, vocab, tp, *changed) * scale
        found.backward()
    return worst([(found, expected), (own.grad, part(whole.grad, -1, tp))]), *count.counts.values()


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("vocab", [16, 15, 13])
@pytest.mark.parametrize("changed", [None, (0.1, 0.0), (0.0, 0.01), (0.2, 0.3)])
def test_loss_of_a_split_vocabulary(world, vocab, changed):
    for error, reductions in run_ranks(world, split_loss, world, vocab, changed):
        assert error < 1e-12
        assert reductions == 2


def draws(world: int) -> tuple[Tensor, Tensor, Tensor, float]:
    """Numbers drawn inside, numbers drawn after, and the mask of a recomputed dropout against the first one's."""
    tp = mesh(world)
    torch.manual_seed(3)
    with own_random(tp):
        inside = torch.rand(4)
    after = torch.rand(4)
    weight = torch.ones(64, requires_grad=True)

    def block(x: Tensor) -> Tensor:
        with own_random(tp):
            x = F.dropout(x * weight, 0.5)
        return F.dropout(x, 0.5)

    y = checkpoint(block, torch.ones(64, requires_grad=True), use_reentrant=False)
    y.sum().backward()
    return inside, after, y, worst([(weight.grad, y)])


@pytest.mark.parametrize("world", WORLDS)
def test_own_random_differs_inside_and_agrees_after(world):
    results = run_ranks(world, draws, world)
    assert len({inside.tobytes() for inside, *_ in results}) == world
    assert len({after.tobytes() for _, after, *_ in results}) == 1
    assert len({y.tobytes() for _, _, y, _ in results}) == world
    assert all(error == 0 for *_, error in results)


def fails(rank_error: bool) -> int:
    rank = torch.distributed.get_rank()
    if rank == 1 and rank_error:
        raise KeyError("on rank 1")
    torch.distributed.barrier()
    return rank


def test_run_ranks_orders_results_and_surfaces_errors():
    assert run_ranks(3, fails, False) == [0, 1, 2]
    with pytest.raises(RankError, match="KeyError: 'on rank 1'"):
        run_ranks(2, fails, True)


def stuck() -> None:
    if torch.distributed.get_rank() == 0:
        torch.distributed.recv(torch.zeros(1), 1)
    else:
        time.sleep(60)


def test_run_ranks_ends_stuck_ranks():
    with pytest.raises(RankError):
        run_ranks(2, stuck, timeout=1.0)


ORPHANS = """\
import os, time
from specc.verify.launch import run_ranks

def told() -> None:
    os.write(1, f"{os.getpid()}\\n".encode())  # in one piece
    time.sleep(600)

run_ranks(2, told)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere ranks whose parent is gone end at their timeout")
def test_ranks_end_with_their_parent():
    with subprocess.Popen([sys.executable, "-c", ORPHANS], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        ranks = [os.pidfd_open(int(parent.stdout.readline())) for _ in range(2)]
        parent.kill()
        for rank in ranks:
            assert select.select([rank], [], [], 30.0)[0]
            os.close(rank)


def test_dtensor_parameters_are_placed():
    def placed() -> tuple[int, ...]:
        p = parameter((5, 4), Shard(0), mesh(2))
        assert isinstance(p, DTensor)
        return tuple(p.to_local().shape)

    assert run_ranks(2, placed) == [(3, 4), (2, 4)]


def starts() -> int:
    """The row at which this rank's shard starts, by the mesh that its parameter names."""
    p = parameter((4, 3), Shard(0), mesh(2))
    return compute_local_shape_and_global_offset(p.shape, p.device_mesh, p.placements)[1][0]


def test_ranks_forget_who_their_parent_was():
    """torch caches specs with their meshes, and a mesh that is equal but for its rank is found again after a fork."""
    with fake_group(2):
        assert starts() == 0
    assert run_ranks(2, starts) == [0, 2]
