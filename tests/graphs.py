"""Typed and interpreted graphs for tests, and the comparison of all that they compute."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

from specc.interpret import init_weights, interpret
from specc.ir.graph import Graph
from specc.lower import lower
from specc.passes import typed
from specc.spec.core import Layout, Model
from tests.models import VOCAB

SIZES = {"batch": 3, "seq": 23, "source": 19, "target": 23}


def graph_of(model: Model, *passes: Callable[[Graph, Layout], Graph], layout: Layout | None = None) -> Graph:
    graph = typed(lower(model), layout)
    for step in passes:
        graph = step(graph, layout or Layout())
    return graph


def made(graph: Graph, dtype: torch.dtype = torch.float64, seed: int = 0) -> fx.GraphModule:
    """Interpreted, initialised, with noise on every parameter."""
    module = interpret(graph, dtype=dtype)
    init_weights(module, graph, seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return module


def ids(model: Model, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """What a model reads; numbers are of that type."""
    generator = torch.Generator().manual_seed(seed)
    axes, batch = ("source", "target") if len(model.stacks) == 2 else ("seq",), SIZES["batch"]
    stems = [model.embed_of(stack).stem for stack in model.stacks]
    found = [
        torch.randint(VOCAB, (batch, SIZES[axis]), generator=generator)
        if stem is None
        else torch.randn(batch, *stem.shape, generator=generator).to(dtype)
        for axis, stem in zip(axes, stems, strict=True)
    ]
    drawn = (torch.rand(found[0].shape, generator=generator) < 0.3 for _ in model.inputs)
    more = (
        x.long() if name in ("types", "prefix") else x.cumsum(1) for name, x in zip(model.inputs, drawn, strict=True)
    )
    return (*found, *more)


def gradients(module: nn.Module, inputs: tuple[Tensor, ...]) -> dict[str, Tensor]:
    """Logits and all gradients of a random linear function of them."""
    module.zero_grad()
    dtype = next(module.parameters()).dtype
    logits = module(*(x.to(dtype) if x.is_floating_point() else x for x in inputs))
    probe = torch.randn(logits.shape, generator=torch.Generator().manual_seed(5)).to(logits.dtype)
    (logits * probe).sum().backward()
    found = {name: parameter.grad for name, parameter in module.named_parameters()}
    return {"logits": logits.detach(), **{name: grad.clone() for name, grad in found.items() if grad is not None}}


def assert_same(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert list(a) == list(b)
    for name in a:
        assert bool(a[name].isfinite().all()) and torch.equal(a[name], b[name]), name
