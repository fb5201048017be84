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
from specc.lower import lower
from specc.passes import compile_graph
from specc.spec.core import Checkpoint, Layout, Model
from specc.spec.layout_rules import save_names
from specc.verify.launch import run_ranks
from specc.verify.run import load_file
from tests import zoo
from tests.comm import SOURCE, TARGET, fake_group, tokens
from tests.counting import Counting
from tests.files import file_of, source_of

NAMES = ("llama-tiny", "transformer-tiny", "gpt2-tiny")
MODES = {"one": Layout(), "tp": Layout(tp=2), "sp": Layout(tp=2, sequence_parallel=True)}
SAVES = (("attention.core",), ("attention.o",), ("attention.core", "attention.o"))
SIZES = {"batch": 3, "source": SOURCE, "target": TARGET, "seq": TARGET}
KINDS = {"_scaled_dot_product_flash_attention_for_cpu": "attention", "mm": "linear", "addmm": "linear"}
COLLECTIVES = {"all_reduce": "P to I", "reduce_scatter_tensor": "P to S", "all_gather_into_tensor": "S to R"}
COUNTED = {*KINDS.values(), *COLLECTIVES.values()}


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
    """In float64: the values, and of attention the logsumexp of each row, which is a result of the same op."""
    total = 0
    for kept in kept_results(graph):
        value = local_numbers(graph, (kept.collective or kept.op).ref)
        rows = value // graph.type(kept.op.ref).axes[-1].size if kept.op.kind == "attention" else 0
        total += 8 * (value + rows) * len(kept.layers)
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
        assert set(less) - COUNTED <= {"cat", "wait_tensor", "_wrap_tensor_autograd"}, names  # around a collective
        assert set(more) <= {"new_full"}, names  # stands in for what a collective took


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


def broken(model: Model, layout: Layout, source: str) -> tuple[bool, str]:
    """Whether a gradient has NaN, or the error that a step ends with."""
    try:
        tensors = step(model, layout, load_file(source, "broken")).tensors
    except RuntimeError as error:
        return False, str(error)
    return any(bool(x.isnan().any()) for x in tensors), ""


@pytest.mark.parametrize(
    ("line", "instead", "nan", "error"),
    [
        ("reduce_scatter(self.o(x), 1, self.tp)", "reduce_scatter(self.o(x).tanh(), 1, self.tp)", True, ""),
        ("x = x.transpose(1, 2).flatten(2)", "x = x.add_(1).transpose(1, 2).flatten(2)", False, "changed in place"),
    ],
)
def test_a_scope_edited_by_hand_is_never_silently_wrong(line: str, instead: str, nan: bool, error: str) -> None:
    model, layout = model_of("llama-tiny"), checkpointed(MODES["sp"], save=SAVES[-1])
    source = source_of(model, layout)
    assert source.count(line) == 1
    for found, message in run_ranks(2, broken, model, layout, source.replace(line, instead)):
        assert found == nan and error in message
    plain = source.replace(line, instead).replace(", context_fn=keep", "")
    assert run_ranks(2, broken, model, layout, plain) == [(False, "")] * 2


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


def expected_calls(kept: Kept) -> list[str]:
    """Functions that the scope of a kept result calls, outermost first."""
    op = kept.op
    calls = {
        "linear": lambda: [f"self.{op.params[0].path[-2]}"],
        "attention": lambda: [
            "F.scaled_dot_product_attention",
            *["causal"] * (len(op.inputs) > 3 and bool(op.attr("causal"))),
        ],
        "activation": lambda: [f"F.{str(op.attr('function')).removesuffix('_tanh')}"],
    }[op.kind]()
    if kept.collective is None:
        return calls
    target = kept.collective.attr("dst")
    dim = [] if target.kind == "I" else [str(kept.collective.outs[0].dim(target.axis))]
    return [f"{'reduce_scatter' if dim else 'all_reduce'}({', '.join([*dim, 'self.tp'])})", *calls]


def kept_scopes(tree: ast.AST) -> list[tuple[str, ast.With]]:
    found = []
    for node in ast.walk(tree):
        for item in node.items if isinstance(node, ast.With) else ():
            call = item.context_expr
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "kept":
                found.append((ast.literal_eval(call.args[0]), node))
    return found


def calls_in(scope: ast.With) -> list[str]:
    """Functions called in a scope, outermost first; of collectives also what they take after the value."""
    (line,) = scope.body
    assert isinstance(line, (ast.Assign, ast.Return)) and isinstance(line.value, ast.Call)
    assert not any(isinstance(node, (ast.BinOp, ast.Subscript)) for node in ast.walk(line))
    found = []
    for node in ast.walk(line.value):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            more = [ast.unparse(argument) for argument in node.args[1:]]
            found.append(f"{name}({', '.join(more)})" if name in ("all_reduce", "reduce_scatter") else name)
    return found


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", zoo.TINY)
def test_a_scope_holds_one_op_and_the_collective_after_it(name: str, mode: str) -> None:
    model = model_of(name)
    layout = checkpointed(MODES[mode], save=tuple(save_names(model)))
    tree = ast.parse(source_of(model, layout))
    with group(layout):
        file = file_of(model, layout)
        mesh = [file.device_mesh("cpu")] if layout.tp > 1 else []
        module = file.build_model(*mesh, torch.device("cpu"), 0)
    classes = {type(part).__name__ for part in module.modules()}
    texts = {node.name: kept_scopes(node) for node in tree.body if isinstance(node, ast.ClassDef)}
    assert {name for name, scopes in texts.items() if scopes} <= classes
    expected: dict[str, dict[str, list[str]]] = {}
    for kept in kept_results(compile_graph(lower(model), layout)):
        *inside, leaf = kept.op.kept.split(".")
        for path in kept.layers:
            cls = type(module.get_submodule(".".join([path, *inside]))).__name__
            calls = expected_calls(kept)
            assert expected.setdefault(cls, {}).setdefault(kept.op.kept, calls) == calls, leaf
    found = {name: {kept: calls_in(scope) for kept, scope in scopes} for name, scopes in texts.items() if scopes}
    assert found == expected
    assert sum(map(len, texts.values())) == sum(map(len, expected.values())) == len(kept_scopes(tree))
