"""Generated files against Hugging Face's GPT-2 and Llama and torch's own transformer layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from specc.interpret import interpret
from specc.spec.core import Layout
from specc.verify.run import load_file
from tests import parity_specs, zoo
from tests.files import file_of, on_meta, source_of
from tests.graphs import graph_of
from tests.parity import CASES, Case, check_against
from tests.parity_specs import PUBLISHED, TINY


def built(source: str) -> nn.Module:
    return load_file(source, "file").build_model(torch.device("cpu"), 0).double().eval()


def compare(case: Case, source: str) -> float:
    return check_against(case.reference().double(), built(source), case.inputs, case.mapping)


@pytest.mark.parametrize("name", CASES)
def test_logits_and_all_gradients(name: str) -> None:
    assert compare(CASES[name], source_of(CASES[name].model, Layout())) <= 1e-9


@pytest.mark.parametrize("name", ["llama", "transformer"])
def test_with_checkpoints(name: str) -> None:
    layout = zoo.layout(1, False, 1, "1f1b", "save")
    source = source_of(CASES[name].model, layout)
    assert "checkpoint(" in source and compare(CASES[name], source) <= 1e-9


@pytest.mark.parametrize("name", TINY)
def test_tiny_specs_in_yaml(name: str) -> None:
    case = TINY[name]
    assert compare(case, source_of(case.model, Layout())) <= 1e-9
    interpreted = interpret(graph_of(case.model), dtype=torch.float64).eval()
    assert check_against(case.reference().double(), interpreted, case.inputs, case.mapping) <= 1e-9


@pytest.mark.parametrize("name", [*PUBLISHED, "transformer-base"])
def test_published_specs_in_yaml_made_narrow(name: str) -> None:
    case = parity_specs.narrow_case(name) if name in PUBLISHED else parity_specs.narrow_transformer()
    assert compare(case, source_of(case.model, Layout())) <= 1e-9


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_of_published_models(name: str) -> None:
    published = PUBLISHED[name]
    ours = dict(on_meta(file_of(zoo.spec(name).model)).named_parameters())
    with torch.device("meta"):
        theirs = dict(published.reference().named_parameters())
    assert ours.keys() == published.views.keys()
    assert {view.name for view in published.views.values()} == theirs.keys()
    for parameter, view in published.views.items():
        assert ours[parameter].is_meta and ours[parameter].shape == view(theirs).shape, parameter
    for parameters in (ours, theirs):
        assert sum(p.numel() for p in parameters.values()) == published.parameters


MUTANTS = [
    ("gpt2-tiny", "is_causal=True", "is_causal=False"),
    ("gpt2-tiny", 'approximate="tanh"', 'approximate="none"'),
    ("llama-tiny", "100.0", "101.0"),
    ("llama-tied-tiny", "F.silu", "F.gelu"),
    ("transformer-tiny", ".ne(0)", ".ne(1)"),
    ("transformer-tiny", "32**0.5", "1.0"),
]


@pytest.mark.parametrize(("name", "old", "new"), MUTANTS)
def test_a_wrong_file_is_found(name: str, old: str, new: str) -> None:
    source = source_of(TINY[name].model, Layout())
    assert old in source
    with pytest.raises(AssertionError, match="difference"):
        compare(TINY[name], source.replace(old, new))
