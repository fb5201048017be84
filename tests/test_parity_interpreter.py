"""The interpreter against Hugging Face's GPT-2 and Llama and torch's own transformer layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from specc.interpret import attention, interpret
from specc.interpret.table import TABLE
from specc.spec.core import Model
from tests import parity
from tests.graphs import graph_of
from tests.parity import CASES, Case, check_against

TABLE_BEFORE = TABLE | attention.TABLE


def interpreted(model: Model, dtype: torch.dtype = torch.float64) -> nn.Module:
    return interpret(graph_of(model), dtype=dtype)


def compare(case: Case) -> float:
    return check_against(case.reference().double(), interpreted(case.model), case.inputs, case.mapping)


@pytest.mark.parametrize("name", CASES)
def test_logits_and_all_gradients(name: str) -> None:
    assert compare(CASES[name]) <= 1e-9


def test_llama_as_it_comes_with_norms_in_float32() -> None:
    case = parity.llama(exact=False)
    check_against(case.reference(), interpreted(case.model, torch.float32), case.inputs, case.mapping, 1e-5)


def _without(name: str, value: Any) -> Callable[..., Callable[..., Tensor]]:
    """The op with one argument pinned."""
    return lambda function: lambda *args, **attrs: function(*args, **{**attrs, name: value})


def _heads_interleaved(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda q, k, v, *mask, **attrs: function(q, k.flip(1), v.flip(1), *mask, **attrs)


def _unmasked(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda ids, **attrs: function(ids, **attrs) | True


MUTANTS: dict[str, tuple[str, str, Callable[..., Callable[..., Tensor]]]] = {
    "rms eps": ("llama", "rms_norm", _without("eps", 1e-6)),
    "layer eps": ("gpt2", "layer_norm", _without("eps", 1e-5)),
    "not causal": ("gpt2", "attention", _without("causal", False)),
    "scores not scaled": ("gpt2", "attention", _without("scale", 1.0)),
    "group order": ("llama", "attention", _heads_interleaved),
    "exact gelu": ("gpt2", "activation", lambda function: lambda x, **attrs: F.gelu(x)),
    "no rope scaling": ("llama", "rope_table", _without("scaling", None)),
    "no linear scaling": ("llama-linear-rope", "rope_table", _without("scaling", None)),
    "theta": ("llama", "rope_table", _without("theta", 101.0)),
    "rope": ("llama", "rope", lambda function: lambda x, table: function(x, table * torch.tensor([[[1.0]], [[-1.0]]]))),
    "positions from 1": ("gpt2", "positions", lambda function: lambda *args, **attrs: function(*args, **attrs) + 1),
    "embedding scale": ("transformer", "scale", _without("factor", 1.0)),
    "sinusoids shifted": (
        "transformer",
        "sinusoid",
        lambda function: lambda *args, **attrs: function(*args, **attrs).roll(1),
    ),
    "padding seen": ("transformer", "real", _unmasked),
    "gate added": ("llama", "mul", lambda function: lambda a, b: a + b),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_op_is_found(mutant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case, kind, change = MUTANTS[mutant]

    def changed(*args: Tensor, **attrs: Any) -> Tensor:
        return change(TABLE_BEFORE[kind])(*args, **attrs)

    changed.__module__, changed.__name__ = __name__, "changed"
    monkeypatch.setitem(TABLE if kind in TABLE else attention.TABLE, kind, changed)
    with pytest.raises(AssertionError, match="difference"):
        compare(CASES[case])
