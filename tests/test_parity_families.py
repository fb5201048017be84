"""Families of Hugging Face against interpreter and file: logits and every gradient, in float64."""

from __future__ import annotations

import pytest
import torch

from specc.interpret import interpret
from specc.spec.core import Layout
from tests import parity_families, parity_scores
from tests.files import source_of
from tests.graphs import graph_of
from tests.parity import check_against
from tests.test_parity_file import built

FAMILIES = {**parity_families.FAMILIES, **parity_scores.FAMILIES}


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_and_all_gradients(name: str) -> None:
    case = FAMILIES[name].case
    interpreted = interpret(graph_of(case.model), dtype=torch.float64).eval()
    assert check_against(case.reference().double(), interpreted, case.inputs, case.mapping) <= 1e-9
    made = built(source_of(case.model, Layout()))
    assert check_against(case.reference().double(), made, case.inputs, case.mapping) <= 1e-9
