"""Interpreter and files against families of Hugging Face whose frames differ."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from specc.interpret import interpret
from specc.spec.core import Layout
from specc.verify.run import load_file
from tests.files import source_of
from tests.graphs import graph_of
from tests.parity import Case, check_against
from tests.parity_frames import FAMILIES


def compare(case: Case, module: nn.Module) -> float:
    return check_against(case.reference().double(), module.eval(), case.inputs, case.mapping)


def built(source: str) -> nn.Module:
    return load_file(source, "file").build_model(torch.device("cpu"), 0).double()


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_all_gradients(name: str) -> None:
    case = FAMILIES[name].case
    assert compare(case, interpret(graph_of(case.model), dtype=torch.float64)) <= 1e-9
    assert compare(case, built(source_of(case.model, Layout()))) <= 1e-9


MUTANTS = [
    ("gemma", "self.offset + ", ""),
    ("gemma2", "self.ffn_post_norm(", "("),
    ("olmo2", "self.attention_post_norm(", "("),
    ("granite", " * 0.22", " * 0.23"),
    ("olmo", "eps=1e-05", "eps=1e-06"),
    ("nemotron", "self.offset + ", ""),
    ("gpt_neox", "self.ffn_norm(x)", "self.attention_norm(x)"),
    ("phi", "normed", "x"),
]


@pytest.mark.parametrize(("name", "old", "new"), MUTANTS)
def test_a_wrong_file_is_found(name: str, old: str, new: str) -> None:
    case = FAMILIES[name].case
    source = source_of(case.model, Layout())
    assert old in source
    with pytest.raises((AssertionError, NameError)):
        compare(case, built(source.replace(old, new)))
