"""How parameters start: values depend on seed, name and shape alone, so they are the same in every layout."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

from specc.interpret.unroll import parameters
from specc.ir.graph import Graph
from specc.ir.op import STARTS, Init, Param
from specc.kernels import starts

BLOCK = 16  # rows that are drawn together


def initial(name: str, param: Param, seed: int) -> Tensor:
    """The first value of a parameter in float32: each block of rows is drawn by its own generator."""
    shape = tuple(axis.length for axis in param.axes)
    init = param.init
    if init.kind == "ones":
        return torch.ones(shape)
    if init.kind == "zeros":
        return torch.zeros(shape)
    if init.kind == "constant":
        return torch.full(shape, init.std)
    if init.kind not in ("normal", "uniform", "truncated", *STARTS):
        raise ValueError(f"{name}: no init {init.kind}")
    blocks: list[Tensor] = []
    for number in range(-(-shape[0] // BLOCK)):
        digest = hashlib.blake2b(f"{seed} {name} {number}".encode(), digest_size=7).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest))
        if init.kind in STARTS:
            blocks.append(getattr(starts, init.kind)(generator, number, torch.Size(shape)))
        else:
            blocks.append(_drawn(init, torch.Size(shape), generator))
    return torch.cat(blocks)[: shape[0]]


def _drawn(init: Init, shape: torch.Size, generator: torch.Generator) -> Tensor:
    if init.kind == "normal":
        return torch.randn(BLOCK, *shape[1:], generator=generator, dtype=torch.float32) * init.std
    if init.kind == "uniform":
        return starts.uniform(generator, shape, init.std)
    return starts.truncated(generator, shape, init.std, init.cut)


def initial_weights(graph: Graph, seed: int) -> dict[str, Tensor]:
    """Global name -> first value, float32 on the CPU."""
    return {name: initial(name, param, seed) for name, param in parameters(graph).items()}


@torch.no_grad()
def init_weights(module: nn.Module, graph: Graph, seed: int) -> None:
    """Fill parameters and buffers of a module of this graph. Raises ValueError where their names differ."""
    own, wanted = {**dict(module.named_parameters()), **dict(module.named_buffers())}, parameters(graph)
    if own.keys() != wanted.keys():
        raise ValueError(f"parameters of one but not the other: {sorted(own.keys() ^ wanted.keys())}")
    for name, param in wanted.items():
        own[name].copy_(initial(name, param, seed))
