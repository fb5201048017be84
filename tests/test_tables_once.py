"""What layers read is made in the type of the stream once: autograd keeps one table, whatever the number of layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout, Model
from tests.files import file_of

TEXT = """
specc: 1
name: tables
d_model: 32
vocab: 50
norm: {{kind: rms, eps: 1e-5}}
{inputs}
decoder:
  layers: {layers}
  block:
    - attention: {{heads: 4, {attention}}}
    - ffn: {{hidden: 40}}
"""
SEQ = 23
PAIRS, ROTATIONS = (SEQ, SEQ), (SEQ, 8)
CASES = {
    "rope": ("rope: {theta: 100}", "", ROTATIONS, 2 * SEQ * 8 * 2),
    "adjacent": ("rope: {theta: 100, pairing: adjacent}", "", (SEQ, 4), 2 * SEQ * 8 * 2),
    "temperature": ("temperature: {floor: 4, scale: 0.1}", "", (SEQ, 1), SEQ * 2),
    "alibi": ("alibi: true", "", PAIRS, 4 * SEQ**2 * 2),
    "relative": ("relative_bias: {buckets: 8, max_distance: 12}", "", PAIRS, 4 * SEQ**2 * 2),
    "window": ("window: 5", "", PAIRS, SEQ**2 * 2),
    "documents": ("window: 9", "inputs: [segments]", PAIRS, 2 * SEQ**2 * 2),
}


def model_of(attention: str, inputs: str, layers: int) -> Model:
    found = load(Source("tables.yaml", TEXT.format(attention=attention, inputs=inputs, layers=layers)))
    assert isinstance(found, Spec), found
    return found.model


def kept(name: str, precision: str, layers: int) -> int:
    """How many storages of the size of the table are kept for backward, and have its last axes."""
    attention, inputs, shape, size = CASES[name]
    file = file_of(model_of(attention, inputs, layers), Layout(precision=precision))
    module = file.build_model(torch.device("cpu"), 0)
    found: set[int] = set()

    def look(x: Tensor) -> Tensor:
        if tuple(x.shape[-2:]) == shape and x.untyped_storage().nbytes() == size:
            found.add(x.untyped_storage().data_ptr())
        return x

    tokens = torch.randint(50, (2, SEQ))
    more = [torch.tensor([0] * 10 + [1] * 13).expand(2, -1)] if inputs else []
    with torch.autograd.graph.saved_tensors_hooks(look, lambda x: x):
        result = module(tokens, *more)
    assert result.isfinite().all()
    return len(found)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", CASES)
def test_a_table_is_kept_once(name: str, precision: str) -> None:
    """Or not at all: the CPU adds a bias of three axes to scores that it keeps."""
    assert kept(name, precision, 1) == kept(name, precision, 3) == (name != "alibi")
