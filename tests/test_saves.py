"""Generated files with results kept by name: bytes that stay alive, ops that run, gradients, and the scopes' text."""

from __future__ import annotations

import ast
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import prod
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Ref
from specc.ir.segments import segments
from specc.lower import lower
from specc.passes import compile_graph
from specc.spec.core import Checkpoint, Layout, Model
from specc.spec.layout_rules import save_names
from specc.verify.launch import run_ranks
from tests import zoo
from tests.comm import SOURCE, TARGET, fake_group, tokens
from tests.counting import Counting
from tests.files import file_of, source_of

NAMES = ("llama-tiny", "transformer-tiny", "gpt2-tiny")
MODES = {"one": Layout(), "tp": Layout(tp=2), "sp": Layout(tp=2, sequence_parallel=True)}
SAVES = (
    ("attention.core",),
    ("attention.o",),
    ("attention.core", "attention.o"),
    ("attention.core", "attention.o", "ffn.up"),
)
SIZES = {"batch": 3, "source": SOURCE, "target": TARGET, "seq": TARGET}
KINDS = {"_scaled_dot_product_flash_attention_for_cpu": "attention", "mm": "linear", "addmm": "linear"}
COLLECTIVES = {"allreduce_": "P to I", "_reduce_scatter_base_": "P to S", "_allgather_base_": "S to R"}
COUNTED = {*KINDS.values(), *COLLECTIVES.values()}
BESIDE = {"add", "clone", "new_empty"} | {"empty_like", "bernoulli_", "div_", "mul", "randint", "_local_scalar_dense"}
"""What runs around a collective, and up to the residual sum: a bias, and a dropout."""


def model_of(name: str) -> Model:
    return zoo.still(zoo.spec(name).model)


def checkpointed(layout: Layout, **how: Any) -> Layout:
    return replace(layout, checkpoint=Checkpoint(**how))


# --- what the graph says


@dataclass(frozen=True)
class Kept:
    """A result that is kept in some layers: its op, the collective after it if there is one, and how many layers."""

    op: Op
    collective: Op | None
    layers: tuple[str, ...]  # paths of their modules


def kept_results(graph: Graph) -> list[Kept]:
    repeats = [op for op in graph.ops if op.kind == "repeat"]
    found = []
    for op in graph.ops:
        if op.kept:
            at = next(n for n, part in enumerate(op.scope) if isinstance(part, Layer))
            layer = op.scope[at]
            (repeat,) = (r for r in repeats if r.attr("path") == op.scope[at - 1] and r.attr("run") == layer.run)
            start, n, period = (repeat.number(name) for name in ("start", "n", "period"))
            numbers = [i for i in range(start, start + n) if i % period == layer.offset]
            users = graph.users(op.ref)
            collective = users[0] if users and users[0].kind == "convert" and users[0].scope == op.scope else None
            found.append(Kept(op, collective, tuple(f"{op.scope[at - 1]}.{i}" for i in numbers)))
    return found


def local_numbers(graph: Graph, ref: Ref) -> int:
    """How many numbers of a value a rank holds."""
    mesh = {axis.name: axis.size for axis in graph.mesh}
    type, spmd = graph.type(ref), graph.spmd(ref)
    return prod(SIZES.get(axis.name, axis.size) // prod(mesh[name] for name in spmd.shards(axis)) for axis in type.axes)


def kept_bytes(graph: Graph) -> int:
    """In float64: the values; of attention the logsumexp of each row, which is a result of the same op; and the mask of
    a dropout in front of the residual sum, which on a CPU is as large as the value."""
    total = 0
    for kept in kept_results(graph):
        value = local_numbers(graph, (kept.collective or kept.op).ref)
        rows = value // graph.type(kept.op.ref).axes[-1].size if kept.op.kind == "attention" else 0
        (behind,) = graph.users((kept.collective or kept.op).ref)
        if behind.kind == "add_bias":
            (behind,) = graph.users(behind.ref)
        mask = value if behind.kind == "dropout" else 0
        total += 8 * (value + rows + mask) * len(kept.layers)
    return total


def ops_kept(graph: Graph) -> Counter[str]:
    """Ops and collectives that are kept."""
    found: Counter[str] = Counter()
    for kept in kept_results(graph):
        found[kept.op.kind] += len(kept.layers)
        if kept.collective:
            found[f"{kept.collective.attr('src')} to {kept.collective.attr('dst').kind}"] += len(kept.layers)
    return found


# --- what a file does


@dataclass(frozen=True)
class Step:
    """Output and gradients of a rank, bytes alive after forward, all ops by kind, and runs of each layer."""

    tensors: list[Tensor]
    bytes: int
    ops: Counter[str]
    runs: dict[str, int]


def step(model: Model, layout: Layout, file: ModuleType | None = None) -> Step:
    """In train mode, so with the dropout that there is, in float64, on this rank; of another file if one is given."""
    file = file or file_of(model, layout)
    torch.set_default_dtype(torch.float64)
    mesh = [file.device_mesh("cpu")] if layout.tp > 1 else []
    module = file.build_model(*mesh, torch.device("cpu"), 0).train()
    generator = torch.Generator().manual_seed(1)
    for p in module.parameters():
        local = p.data.to_local() if isinstance(p, DTensor) else p.data
        local.add_(torch.randn(local.shape, generator=generator) * 0.2)
    runs: dict[str, int] = {}
    for path, part in module.named_modules():
        if path.rpartition(".")[2].isdigit():
            part.register_forward_pre_hook(lambda *_, path=path: runs.update({path: runs.get(path, 0) + 1}))
    torch.manual_seed(2)
    with Counting() as count:
        logits = module(*tokens(model))
        alive = count.bytes
        (logits * torch.randn(logits.shape, generator=generator)).sum().backward()
    grads = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in module.parameters()]
    known = KINDS | COLLECTIVES
    ops = Counter(dict.fromkeys(known.values(), 0))
    for name, n in count.ops.items():
        ops[known.get(name, name)] += n
    return Step([logits.detach(), *grads], alive, ops, runs)


def same(a: list[Tensor], b: list[Tensor]) -> bool:
    return all(bool(x.isfinite().all()) and torch.equal(x, y) for x, y in zip(a, b, strict=True))


def group(layout: Layout) -> AbstractContextManager[None]:
    """One process that stands for a rank: values mean nothing, and nothing holds a tensor a moment longer."""
    return fake_group(layout.tp) if layout.tp > 1 else nullcontext()


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_stays_alive_and_runs_once(name: str, mode: str) -> None:
    model, layout = model_of(name), MODES[mode]
    with group(layout):
        full = step(model, checkpointed(layout, every=1))
    for names in SAVES:
        saving = checkpointed(layout, save=names)
        with group(layout):
            found = step(model, saving)
        graph = compile_graph(lower(model), saving)
        assert found.bytes - full.bytes == kept_bytes(graph), names
        less, more = full.ops - found.ops, found.ops - full.ops
        assert {kind: n for kind, n in less.items() if kind in COUNTED} == ops_kept(graph), names
        assert set(less) - COUNTED <= BESIDE and not more, names


def unequal(model: Model, layout: Layout) -> list[tuple[str, ...]]:
    """Which of SAVES changes a bit of this rank's logits or gradients, and `full` if that does."""
    plain = step(model, layout).tensors
    layouts = {("full",): {"every": 1}, **{names: {"save": names} for names in SAVES}}
    return [
        names for names, how in layouts.items() if not same(step(model, checkpointed(layout, **how)).tensors, plain)
    ]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_gradients_are_those_without_checkpoints(name: str, mode: str) -> None:
    model, layout = model_of(name), MODES[mode]
    for how in ({}, {"every": 1}, *({"save": names} for names in SAVES)):
        source_of(model, checkpointed(layout, **how))  # once, before the ranks part
    ranks = run_ranks(2, unequal, model, layout) if layout.tp > 1 else [unequal(model, layout)]
    assert not any(ranks)


@pytest.mark.parametrize("name", NAMES)
def test_every_second_layer_runs_again(name: str) -> None:
    model = model_of(name)
    plain = step(model, Layout())
    assert set(plain.runs.values()) == {1}
    for every in (1, 2, 3):
        found = step(model, checkpointed(Layout(), every=every))
        assert same(found.tensors, plain.tensors)
        assert found.runs == {path: 1 + (int(path.split(".")[-1]) % every == 0) for path in plain.runs}
        again = found.ops["attention"] - plain.ops["attention"]
        cores = {path: 1 + path.startswith("decoder.") for path in plain.runs}  # of one layer
        assert again == sum(cores[path] for path, n in found.runs.items() if n == 2)


# --- the text


def labels(tree: ast.AST) -> list[tuple[str, ast.With]]:
    found = []
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, ast.With) else ():
            call = item.context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "kept":
                found.append((ast.literal_eval(call.args[0]), node))
    return found


def function_under(scope: ast.With) -> str:
    """What the one line under a label calls; its operands are names."""
    (line,) = scope.body
    assert isinstance(line, (ast.Assign, ast.Return)) and isinstance(line.value, ast.Call)
    nested = [node for node in ast.walk(line) if isinstance(node, ast.Call)][1:]
    assert all(ast.unparse(node.func) == "causal" for node in nested)
    return ast.unparse(line.value.func)


def expected_function(op: Op) -> str:
    if op.kind == "linear":
        return f"self.{op.params[0].path[-2]}"
    function = str(dict(op.attrs).get("function"))
    home = "torch" if function in ("sigmoid", "tanh") else "F"
    return {
        "attention": "F.scaled_dot_product_attention",
        "activation": f"{home}.{function.removesuffix('_tanh')}",
    }[op.kind]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", zoo.TINY)
def test_a_label_holds_one_op(name: str, mode: str) -> None:
    """And there is one for every result that no cut keeps, in the class of the component whose result it is."""
    model = model_of(name)
    layout = checkpointed(MODES[mode], save=tuple(save_names(model)))
    tree = ast.parse(source_of(model, layout))
    with group(layout):
        file = file_of(model, layout)
        mesh = [file.device_mesh("cpu")] if layout.tp > 1 else []
        module = file.build_model(*mesh, torch.device("cpu"), 0)
    classes = {type(part).__name__ for part in module.modules()}
    texts = {node.name: labels(node) for node in tree.body if isinstance(node, ast.ClassDef) and labels(node)}
    assert texts.keys() <= classes
    expected: dict[str, dict[str, str]] = {}
    graph = compile_graph(lower(model), layout)
    cut = [op.id for parts in segments(graph).values() for part in parts for op in part.ops if not part.keeps(op)]
    for kept in kept_results(graph):
        *inside, leaf = kept.op.kept.split(".")
        if kept.op.id in cut:
            assert leaf in ("o", "down")
            continue
        for path in kept.layers:
            cls = type(module.get_submodule(".".join([path, *inside]))).__name__
            function = expected_function(kept.op)
            assert expected.setdefault(cls, {}).setdefault(kept.op.kept, function) == function, leaf
    found = {name: {kept: function_under(scope) for kept, scope in scopes} for name, scopes in texts.items()}
    assert found == expected
