"""Interpreted graphs are torch modules in every respect and survive passes."""

from __future__ import annotations

import copy
import io
import warnings
from dataclasses import replace

import pytest
import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp

from specc.interpret import interpret, parameters
from specc.ir.op import Op
from specc.ir.types import TensorType
from specc.lower import lower
from specc.passes.checkpoint import checkpoint
from specc.passes.legalise import legalise
from specc.passes.place import place
from specc.passes.stages import stages
from specc.spec.core import Checkpoint, Layout, Model, Pipeline
from tests import models
from tests.graphs import SIZES, assert_same, gradients, graph_of, ids, made
from tests.models import MODELS

# names


def test_names_of_parameters_and_their_order() -> None:
    block = ["attention.q", "attention.k", "attention.v", "attention.o"]
    ffn = ["ffn.up", "ffn.down"]
    norm = ["weight", "bias"]

    def layer(path: str, *parts: str) -> list[str]:
        names = [[f"{part}.weight"] if "norm" not in part else [f"{part}.{leaf}" for leaf in norm] for part in parts]
        return [f"{path}.{name}" for group in names for name in group]

    cross = [f"cross_{name}" for name in block]
    expected = [
        "embedding.weight",
        *(n for i in range(2) for n in layer(f"encoder.{i}", *block, "attention_norm", *ffn, "ffn_norm")),
        *(
            name
            for i in range(2)
            for name in layer(
                f"decoder.{i}", *block, "attention_norm", *cross, "cross_attention_norm", *ffn, "ffn_norm"
            )
        ),
    ]
    assert list(interpret(graph_of(MODELS["transformer"])).state_dict()) == expected


@pytest.mark.parametrize("name", MODELS)
def test_state_dict_has_the_parameters_of_the_graph(name: str) -> None:
    graph = graph_of(MODELS[name])
    module = interpret(graph, dtype=torch.bfloat16, device="meta")
    wanted = parameters(graph)
    assert list(module.state_dict()) == list(wanted)
    for key, parameter in module.named_parameters():
        assert parameter.shape == tuple(axis.size for axis in wanted[key].axes)
        assert parameter.dtype == torch.bfloat16 and parameter.is_meta and parameter.requires_grad
    assert not dict(module.named_buffers())


def test_the_head_is_the_embedding_where_tied() -> None:
    assert "head.weight" in parameters(graph_of(models.llama()))
    assert "head.weight" not in parameters(graph_of(models.llama(tied=True)))


@pytest.mark.parametrize("name", MODELS)
def test_nothing_is_lost_in_a_state_dict(name: str) -> None:
    graph = graph_of(MODELS[name])
    module, other = made(graph), interpret(graph, dtype=torch.float64)
    assert bool(other(*ids(MODELS[name])).isnan().all()), "values before init must not look like values"
    other.load_state_dict(module.state_dict())
    assert_same(gradients(module, ids(MODELS[name])), gradients(other, ids(MODELS[name])))


# dropout


def test_dropout_follows_the_mode_of_the_module() -> None:
    plain, dropping = models.transformer(), models.transformer(dropout=0.3)
    module, without = made(graph_of(dropping)), made(graph_of(plain))
    inputs = ids(plain)
    module.eval()
    assert torch.equal(module(*inputs), without(*inputs))
    module.train()
    torch.manual_seed(3)
    first, second = module(*inputs), module(*inputs)
    assert bool((first != second).any())
    torch.manual_seed(3)
    assert torch.equal(module(*inputs), first)
    module.encoder.get_submodule("1").eval()  # a part alone
    torch.manual_seed(3)
    assert bool((module(*inputs) != first).any())


@pytest.mark.parametrize("kind", ["attention", "dropout"])
def test_every_dropout_is_alive(kind: str) -> None:
    graph = graph_of(models.gpt2(dropout=0.5))
    ops = [op.id for op in graph.ops if op.kind == kind]
    module = made(graph)
    dropouts = [m for m in module.modules() if type(m).__name__ == "Random" and m.function.__name__ == kind]
    assert len(dropouts) == (3 if kind == "attention" else 7) and len(ops) == (1 if kind == "attention" else 3)
    module.eval()
    quiet = module(*ids(models.gpt2()))
    for dropout in dropouts:
        dropout.train()
        assert bool((module(*ids(models.gpt2())) != quiet).any())
        dropout.eval()


# torch's own machinery


@pytest.mark.parametrize("name", MODELS)
def test_deepcopy_is_equal_and_independent(name: str) -> None:
    module = made(graph_of(MODELS[name]))
    inputs, before = ids(MODELS[name]), gradients(module, ids(MODELS[name]))
    twin = copy.deepcopy(module)
    assert_same(gradients(twin, inputs), before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert_same(gradients(module, inputs), before)
    assert bool((twin(*inputs) != before["logits"]).any())


def test_pickling_keeps_dropout_switchable() -> None:
    model = models.gpt2(dropout=0.3)
    module = made(graph_of(model))
    file = io.BytesIO()
    torch.save(module, file)
    file.seek(0)
    twin = torch.load(file, weights_only=False)
    for mode in (True, False):
        module.train(mode), twin.train(mode)
        torch.manual_seed(0)
        expected = gradients(module, ids(model))
        torch.manual_seed(0)
        assert_same(gradients(twin, ids(model)), expected)


@pytest.mark.parametrize("name", MODELS)
def test_export_with_sizes_left_open(name: str) -> None:
    model = MODELS[name]
    module = made(graph_of(model)).eval()
    batch = torch.export.Dim("batch", min=2, max=64)
    lengths = [torch.export.Dim(f"length{n}", min=2, max=60) for n in range(len(model.stacks))]
    program = torch.export.export(module, ids(model), dynamic_shapes=[{0: batch, 1: length} for length in lengths])
    assert list(program.state_dict) == list(module.state_dict())
    for seed, cut in ((1, 23), (2, 11)):
        inputs = tuple(tokens[:2, :cut] for tokens in ids(model, seed))
        assert torch.allclose(program.module()(*inputs), module(*inputs), rtol=0, atol=1e-13)


@pytest.mark.parametrize("name", MODELS)
def test_every_value_has_the_shape_that_the_graph_says(name: str) -> None:
    graph = graph_of(MODELS[name])
    module = made(graph, torch.bfloat16)
    seen: dict[str, int] = {}

    def check(part: nn.Module, args: tuple[Tensor, ...]) -> None:
        assert isinstance(part, fx.GraphModule)
        ShapeProp(part).propagate(*args)
        for node in part.graph.nodes:
            if "op" in node.meta:
                seen[node.meta["op"]] = seen.get(node.meta["op"], 0) + 1
                assert_typed(node, graph.op(node.meta["op"]).outs[0])

    hooks = [
        p.register_forward_pre_hook(check)
        for p in module.modules()
        if isinstance(p, fx.GraphModule) and p is not module
    ]
    check(module, ids(MODELS[name]))
    for hook in hooks:
        hook.remove()
    computed = [op.id for op in graph.ops if op.scope[:1] != ("loss",) and op.kind not in ("repeat", "end")]
    assert set(computed) <= seen.keys()


def assert_typed(node: fx.Node, type: TensorType) -> None:
    meta = node.meta["tensor_meta"]
    sizes = tuple(axis.size if isinstance(axis.size, int) else SIZES[axis.size] for axis in type.axes)
    dtype = torch.bfloat16 if type.dtype == "float" else getattr(torch, type.dtype)
    assert (tuple(meta.shape), meta.dtype) == (sizes, dtype), node


def test_the_whole_of_it_is_fx() -> None:
    module = made(graph_of(MODELS["llama"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in module.modules():
            if isinstance(part, fx.GraphModule):
                part.graph.lint()
    tokens = ids(MODELS["llama"])
    assert torch.equal(fx.Interpreter(module).run(*tokens), module(*tokens))
    assert torch.equal(fx.symbolic_trace(module)(*tokens), module(*tokens))


# after passes


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", MODELS)
def test_pipeline_stages_change_nothing(name: str, count: int) -> None:
    assert_cut_is_equal(MODELS[name], Pipeline(stages=count))


@pytest.mark.parametrize(
    ("name", "starts"),
    [
        ("patterned", ("layers.1", "layers.2", "layers.3", "layers.4")),
        ("patterned", ("layers.1", "layers.3")),
        ("transformer", ("decoder.1",)),
        ("transformer", ("encoder.1", "decoder.0", "decoder.1")),
    ],
)
def test_pipeline_stages_cut_anywhere_change_nothing(name: str, starts: tuple[str, ...]) -> None:
    assert_cut_is_equal(MODELS[name], Pipeline(stages=len(starts) + 1, starts=starts))


def assert_cut_is_equal(model: Model, pipeline: Pipeline) -> None:
    layout = Layout(pp=pipeline, checkpoint=Checkpoint(every=1))
    whole, cut = graph_of(model), graph_of(model, stages, legalise, place, checkpoint, layout=layout)
    assert sum(op.kind == "cut" for op in cut.ops) == pipeline.stages - 1
    assert list(parameters(whole)) == list(parameters(cut))
    assert_same(gradients(made(cut), ids(model)), gradients(made(whole), ids(model)))


def test_biases_taken_off_change_nothing() -> None:
    model = models.transformer(bias=True)
    whole, split = graph_of(model), graph_of(model, legalise, layout=Layout(tp=2))
    assert sum(op.kind == "add_bias" for op in split.ops) > 0
    a, b = gradients(made(whole), ids(model)), gradients(made(split), ids(model))
    assert list(a) == list(b)
    for name in a:
        assert torch.allclose(a[name], b[name], rtol=0, atol=1e-12) and bool(a[name].isfinite().all()), name


# what is refused


def test_an_untyped_graph_is_refused() -> None:
    with pytest.raises(ValueError, match=r"tokens has no type: run the shapes pass"):
        interpret(lower(MODELS["llama"]))


def test_a_placed_graph_is_refused() -> None:
    graph = graph_of(MODELS["llama"])
    head = graph.op("head")
    gathered = Op("head.gathered", "convert", head.inputs, scope=(), outs=(graph.type(head.inputs[0]),))
    ops: list[Op] = []
    for op in graph.ops:
        ops.extend((gathered, replace(op, inputs=(gathered.ref,))) if op.id == "head" else (op,))
    with pytest.raises(ValueError, match=r"head\.gathered: convert cannot be interpreted"):
        interpret(graph.with_ops(ops))
