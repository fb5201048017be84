"""What ops make a device do: flops as torch counts them, on one rank and on several, and something for every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from specc.cost.sizes import Sizes
from specc.cost.work import VIEWS, by_operands, local, work
from specc.extension import Extension
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.lower import lower
from specc.ops import Local, Passes, Work
from specc.passes import compile_graph, typed
from specc.spec.core import Layout
from specc.tables import tables
from tests import zoo
from tests.graphs import SIZES, graph_of, ids, made
from tests.models import MODELS, gpt2


def of_products(graph: Graph, symbols: dict[str, int], part: str) -> int:
    """Flops of products in kernels of their own, in all layers, on one rank."""
    sizes, total = Sizes(graph, symbols), 0
    for op in graph.ops:
        repeat = graph.repeat_of(op.scope)
        runs = 1 if repeat is None else repeat.n // repeat.period
        done: Work = getattr(work(graph, op, sizes), part)
        total += sum(product.flops for product in done.matmuls) * runs
    return total


def symbols_of(graph: Graph) -> dict[str, int]:
    return {name: SIZES[name] for name in graph.symbols}


@pytest.mark.parametrize("name", [name for name in MODELS if name != "patterned"])
def test_flops_of_linears_are_those_that_torch_counts(name: str) -> None:
    """Attention on a CPU is a kernel that torch's counter does not know, so that all it counts are linears."""
    model = MODELS[name]
    graph = graph_of(model)
    module, inputs = made(graph, torch.float32), ids(model)
    with FlopCounterMode(display=False) as ahead:
        logits = module(*inputs)
    with FlopCounterMode(display=False) as back:
        logits.sum().backward()
    symbols = symbols_of(graph)
    assert ahead.get_total_flops() == of_products(graph, symbols, "forward") > 0
    assert back.get_total_flops() == of_products(graph, symbols, "backward") > 0


@pytest.mark.parametrize("name", ["llama", "transformer"])
def test_flops_of_attention_are_those_of_torchs_convention(name: str) -> None:
    graph = graph_of(MODELS[name])
    sizes = Sizes(graph, symbols_of(graph))
    found = [op for op in graph.ops if op.kind == "attention"]
    assert found
    for op in found:
        q, k, v = (sizes.dims(ref) for ref in op.inputs[:3])
        passes = work(graph, op, sizes)
        assert passes.counted(passes.forward) == sdpa_flop_count(q, k, v)
        assert passes.counted(passes.backward) == sdpa_backward_flop_count((*q[:-1], v[-1]), q, k, v)
        causal = dict(op.attrs).get("causal")
        keys = k[2]
        assert passes.forward.done == (sum(range(1, keys + 1)) / keys**2 if causal else 1.0)
        written = work(graph, op, sizes, written_out=True)
        assert written.counted(written.forward) == passes.counted(passes.forward)
        assert written.counted(written.backward) == 2 * passes.counted(passes.forward)


@pytest.mark.parametrize("tp", [2, 4])
def test_ranks_share_flops_out(tp: int) -> None:
    """Every linear of GPT-2 with an even vocab is split; ranks do as much together as one alone."""
    graph = lower(gpt2(vocab=64))
    symbols = {"batch": 2, "seq": 16}
    parts = compile_graph(graph, Layout(tp=tp))
    for part in ("forward", "backward"):
        assert tp * of_products(parts, symbols, part) == of_products(typed(graph), symbols, part)
    sizes, whole = Sizes(parts, symbols), Sizes(typed(graph), symbols)
    for op in parts.ops:
        if op.kind == "attention":
            alone = work(whole.graph, whole.graph.op(op.id), whole)
            assert tp * work(parts, op, sizes).forward.flops == alone.forward.flops


def test_every_kind_of_op_does_something_but_for_views() -> None:
    known = tables().ops
    seen: set[str] = set()
    for path in sorted((zoo.ROOT / "specs" / "tiny").glob("*.yaml")):
        graph = typed(lower(zoo.model(path.stem)))
        sizes = Sizes(graph, graph.symbols)
        for op in graph.ops:
            passes = work(graph, op, sizes)
            seen.add(op.kind)
            grad = any(type.grad for type in op.outs) and (any(type.grad for type in graph.ins(op)) or bool(op.params))
            if op.kind in VIEWS:
                assert passes == Passes(Work())
                continue
            assert passes.forward.matmuls or (passes.forward.bytes > 0 and passes.forward.kernels > 0), op.id
            none = op.kind == "add" or not grad
            assert (passes.backward == Work()) == none, op.id
            if not passes.forward.matmuls:
                assert passes.forward.flops in (0, graph.definition(op).flops(op, graph.ins(op), graph.symbols)), op.id
    assert len(seen & set(known)) > 70


OWN = Passes(Work(flops=7, bytes=11, kernels=2), Work(flops=13, bytes=17, kernels=3))


def test_an_extension_says_what_its_op_does() -> None:
    """Else it is told by flops and operands."""
    graph = graph_of(MODELS["llama"])
    op = next(op for op in graph.ops if op.kind == "activation")
    sizes = Sizes(graph, symbols_of(graph))
    seen: list[Local] = []

    def own(x: Local) -> Passes:
        seen.append(x)
        return OWN

    definition = replace(graph.definition(op), kind="mine", work=own)
    mine = replace(graph, tables=tables((Extension("mine", ops=(definition,)),)))
    asked = op.changed(kind="mine")
    assert work(mine, asked, sizes) == OWN
    assert [tuple(axis.size for axis in type.axes) for type in seen[0].ins] == [sizes.dims(op.inputs[0])]
    plain = replace(mine, tables=tables((Extension("mine", ops=(replace(definition, work=None),)),)))
    rows = sizes.numel(op.ref)
    assert work(plain, asked, sizes) == Passes(
        Work(flops=4 * rows, bytes=4 * 2 * rows, kernels=1), Work(flops=4 * rows, bytes=4 * 3 * rows, kernels=1)
    )


def told(graph: Graph, kind: str, symbols: dict[str, int], how: Callable[[Local], Any]) -> Any:
    op: Op = next(op for op in graph.ops if op.kind == kind)
    return how(local(graph, op, Sizes(graph, symbols, "bfloat16")))


def test_bytes_are_those_of_the_dtype() -> None:
    graph = graph_of(MODELS["llama"])
    symbols = symbols_of(graph)
    rows = SIZES["batch"] * SIZES["seq"]
    passes = told(graph, "mul", symbols, by_operands)
    hidden = 48 * rows * 2  # in half precision
    assert (passes.forward.bytes, passes.backward.bytes) == (3 * hidden, 5 * hidden)
