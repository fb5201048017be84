"""The order of axes: tokens come first in the stream under sequence parallelism, and no collective copies anything."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from specc.interpret import interpret
from specc.ir.graph import Graph
from specc.lower import lower
from specc.passes import compile_graph, typed
from specc.passes.order import order
from specc.spec.core import Layout
from tests import zoo
from tests.comm import fake_group, on_rank, tokens
from tests.models import llama

TP, SP = Layout(tp=2), Layout(tp=2, sequence_parallel=True)


def axes(graph: Graph, id: str) -> list[str]:
    return [axis.name for axis in graph.op(id).outs[0].axes]


@pytest.mark.parametrize("name", zoo.TINY)
def test_both_orders_mean_the_same(name: str) -> None:
    """The same values come out, to the bit where no sum is taken in another order."""
    model = zoo.model(name)
    before = typed(lower(model))
    after = order(before, SP)
    modules = [interpret(graph, dtype=torch.float64).eval() for graph in (before, after)]
    generator = torch.Generator().manual_seed(1)
    state = {key: torch.randn(p.shape, generator=generator) * 0.2 for key, p in modules[0].state_dict().items()}
    results: list[Tensor] = []
    for module in modules:
        module.load_state_dict(state)
        results.append(module(*(x.double() if x.is_floating_point() else x for x in tokens(model))))
    assert list(modules[1].state_dict()) == list(state)
    torch.testing.assert_close(*results, rtol=0.0, atol=1e-13)


def test_the_layout_says_the_order() -> None:
    graphs = {layout: compile_graph(lower(llama()), layout) for layout in (TP, SP)}
    assert axes(graphs[TP], "embedding") == ["batch", "seq", "d_model"] and order(graphs[TP], TP) is graphs[TP]
    assert axes(graphs[SP], "embedding") == ["seq", "batch", "d_model"]
    for graph in graphs.values():
        (logits,) = graph.outputs
        assert [axis.name for axis in graph.type(logits).axes] == ["batch", "seq", "vocab"]


class Copies(TorchDispatchMode):
    """Numbers that are copied from one place to another."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = op(*args, **(kwargs or {}))
        if op.name().split("::")[1].split(".")[0] in ("clone", "copy_"):
            self.found[tuple(result.shape)] += 1
        return result


def copies(layers: int) -> list[Counter[tuple[int, ...]]]:
    """Forward and backward of a rank, in float64 so that nothing is cast."""
    with fake_group(2):
        model = llama(layers=layers)
        module, _, _ = on_rank(model, SP)
        with Copies() as forward:
            logits = module(*tokens(model))
        with Copies() as backward:
            logits.sum().backward()
    return [forward.found, backward.found]


def test_a_layer_copies_nothing_around_collectives() -> None:
    """In backward the gradients of queries, keys and values become rows of tokens again; that is all."""
    three, two = copies(3), copies(2)
    forward, backward = (a - b for a, b in zip(three, two, strict=True))
    assert not forward
    assert backward.total() == 3 and all(len(shape) == 3 for shape in backward)
