"""First values of parameters: drawn by name and block of rows, so they are the same in every layout."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
import torch

from specc.interpret import init_weights, initial_weights, interpret, parameters
from specc.interpret.weights import initial
from specc.ir.op import Init, Param
from specc.ir.types import Axis
from tests import models
from tests.graphs import graph_of
from tests.models import MODELS


def test_normal_is_drawn_by_blocks_of_rows() -> None:
    param = Param(("a", "weight"), (Axis("out", 37), Axis("in", 5)), Init("normal", 0.5), "linear")
    value = initial("a.weight", param, 11)
    assert value.shape == (37, 5) and value.dtype == torch.float32
    for block in range(3):
        digest = hashlib.blake2b(f"11 a.weight {block}".encode(), digest_size=7).digest()
        seed = sum(byte << 8 * (6 - n) for n, byte in enumerate(digest))
        drawn = torch.randn((16, 5), generator=torch.Generator().manual_seed(seed)) * 0.5
        rows = value[16 * block : 16 * block + 16]
        assert torch.equal(rows, drawn[: len(rows)])
    longer = replace(param, axes=(Axis("out", 64), Axis("in", 5)))
    assert torch.equal(initial("a.weight", longer, 11)[:37], value)
    assert not torch.equal(initial("a.weight", param, 12), value)
    assert not torch.equal(initial("b.weight", param, 11), value)


def test_every_parameter_starts_as_its_graph_says() -> None:
    graph = graph_of(MODELS["patterned"])
    module = interpret(graph, dtype=torch.float64)
    init_weights(module, graph, 4)
    values, wanted = initial_weights(graph, 4), parameters(graph)
    for name, parameter in module.named_parameters():
        init = wanted[name].init
        assert torch.equal(parameter, values[name].double()), name
        if init.kind == "normal":
            assert abs(parameter.std().item() / init.std - 1) < 0.2, name
        else:
            fill = {"ones": 1.0, "zeros": 0.0, "constant": init.std}[init.kind]
            assert bool((parameter == fill).all()), name
    assert {param.init.kind for param in wanted.values()} == {"normal", "ones", "zeros", "constant"}


def test_what_has_a_meaning_starts_by_it() -> None:
    param = Param(("a_log", "weight"), (Axis("heads", 37),), Init("log_rows"), "per_head")
    assert torch.allclose(initial("a_log.weight", param, 1).exp(), torch.arange(1.0, 38))
    steps = torch.nn.functional.softplus(initial("b.weight", replace(param, init=Init("small_steps")), 1))
    assert bool(((steps > 0.00099) & (steps < 0.101)).all()) and steps.min() < 0.003 and steps.max() > 0.04


def test_init_refuses_another_model() -> None:
    with pytest.raises(ValueError, match=r"head\.weight"):
        init_weights(interpret(graph_of(models.llama())), graph_of(models.llama(tied=True)), 0)
