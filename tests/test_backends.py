"""The interpreter and generated files: the same names, first values, outputs and gradients, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn
from torch.fx.passes.shape_prop import ShapeProp

import specc
from specc.interpret import initial_weights, interpret
from specc.spec.core import Layout, Model
from tests import zoo
from tests.files import file_of, source_of
from tests.graphs import assert_same, gradients, graph_of, ids
from tests.models import MODELS, gpt2, transformer

DROPPING = {"gpt2-dropping": gpt2(dropout=0.3), "transformer-dropping": transformer(dropout=0.3, bias=True)}
EVERY = {**MODELS, **DROPPING, **{name: zoo.model(name) for name in zoo.TINY}}
DTYPES = (torch.float64, torch.float32)
CPU = torch.device("cpu")


def noisy(model: Model, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Initial weights and noise, so that zeros and ones hide nothing."""
    generator = torch.Generator().manual_seed(1)
    return {
        name: (value + 0.2 * torch.randn(value.shape, generator=generator)).to(dtype)
        for name, value in initial_weights(graph_of(model), 0).items()
    }


def generated(model: Model, dtype: torch.dtype, layout: Layout = Layout()) -> nn.Module:  # noqa: B008 (frozen)
    module = file_of(model, layout).build_model(CPU, 0).to(dtype)
    module.load_state_dict(noisy(model, dtype))
    return module


def interpreted(model: Model, dtype: torch.dtype) -> nn.Module:
    module = interpret(graph_of(model), dtype=dtype)
    module.load_state_dict(noisy(model, dtype))
    return module


def results(module: nn.Module, model: Model, train: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(7)
    found = gradients(module.train(train), ids(model))
    assert list(found) == ["logits", *(name for name, _ in module.named_parameters())]
    return found


@pytest.mark.parametrize("name", EVERY)
def test_names_and_first_values(name: str) -> None:
    model = EVERY[name]
    for seed in (0, 12345):
        module = file_of(model).build_model(CPU, seed)
        wanted, found = initial_weights(graph_of(model), seed), module.state_dict()
        assert list(found) == list(wanted) == list(interpret(graph_of(model)).state_dict())
        assert [*dict(module.named_parameters())] == list(found)
        for key, value in found.items():
            assert value.dtype == torch.float32 and torch.equal(value, wanted[key]), key


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", EVERY)
def test_outputs_and_gradients(name: str, dtype: torch.dtype, train: bool) -> None:
    model = EVERY[name]
    ours = results(generated(model, dtype), model, train)
    assert ours["logits"].dtype == dtype
    assert_same(ours, results(interpreted(model, dtype), model, train))


@pytest.mark.parametrize("name", [*DROPPING, "gpt2-tiny", "transformer-tiny"])
def test_dropout_is_there_and_follows_the_mode(name: str) -> None:
    """Otherwise equality in train mode would say nothing."""
    model = EVERY[name]
    module = generated(model, torch.float64)
    quiet, dropped = results(module, model, False), results(module, model, True)
    assert bool((quiet["logits"] != dropped["logits"]).any())
    assert_same(quiet, results(module, model, False))
    assert_same(dropped, results(module, model, True))


@pytest.mark.parametrize("checkpoint", ["full", "every 2", "save"])
@pytest.mark.parametrize("name", EVERY)
def test_checkpoints_change_nothing(name: str, checkpoint: str) -> None:
    layout = zoo.layout(1, False, 1, "1f1b", checkpoint)
    model = zoo.still(EVERY[name]) if checkpoint == "save" else EVERY[name]
    calls, saves = (source_of(model, layout).count(word) for word in ("checkpoint(", "context_fn=keep_"))
    assert calls and (saves > 0) == (checkpoint == "save")
    for train in (False, True):
        plain, recomputed = generated(model, torch.float64), generated(model, torch.float64, layout)
        assert_same(results(recomputed, model, train), results(plain, model, train))


@pytest.mark.parametrize("name", zoo.TINY)
def test_a_loaded_spec_gives_an_fx_module_for_torchs_own_tools(name: str) -> None:
    folder = Path(zoo.ROOT, "specs", "tiny")
    module = specc.load(folder / f"{name}.yaml").module(dtype=torch.float64, seed=3).eval()
    model, inputs = zoo.model(name), ids(zoo.model(name), dtype=torch.float64)
    assert_same(dict(module.state_dict()), {k: v.double() for k, v in initial_weights(graph_of(model), 3).items()})
    logits = module(*inputs)
    assert torch.equal(ShapeProp(module).propagate(*inputs), logits)
    last = next(node for node in reversed(module.graph.nodes) if node.op != "output")
    whole = (*inputs[-1].shape, model.vocab) if model.head.pool is None else (len(inputs[-1]), model.head.rows)
    assert last.meta["tensor_meta"].shape == logits.shape == whole
    program = torch.export.export(module, inputs)
    assert list(program.state_dict) == list(module.state_dict())
    assert torch.equal(program.module()(*inputs), logits)


def test_one_bit_is_seen() -> None:
    model = EVERY["llama-tiny"]
    a = results(interpreted(model, torch.float64), model, False)
    module = generated(model, torch.float64)
    with torch.no_grad():
        weight = next(iter(module.parameters()))
        weight[3, 3] = torch.nextafter(weight[3, 3], torch.tensor(9.0, dtype=torch.float64))
    with pytest.raises(AssertionError):
        assert_same(results(module, model, False), a)
