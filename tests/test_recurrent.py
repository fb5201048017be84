"""Mixers that go along a sequence: documents as if alone, generation by what is kept, the same in every layout."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from specc.emit import emit
from specc.interpret import init_weights, interpret, interpret_loss
from specc.kernels.cache import Cache
from specc.kernels.convolution import causal_conv, document_conv
from specc.lower import lower
from specc.passes import second
from specc.spec.core import Checkpoint, Layout, Pipeline, Spec
from specc.verify.relations import describe, layout_relations, plain_relations, setting
from specc.verify.run import in_double, load_file
from tests.graphs import graph_of, made
from tests.mixers import MIXERS, mixed
from tests.test_generate import assert_near as near
from tests.test_generate import noisy, prompt, source_of
from tests.test_packing import assert_near, gradients, rows

ENCODER = {"decoder": "pad: 0\nencoder"}


@pytest.mark.parametrize("name", MIXERS)
def test_documents_of_a_row_are_as_if_alone(name: str) -> None:
    model = mixed(MIXERS[name]).model
    alone, packed = graph_of(model), graph_of(replace(model, inputs=("segments",)))
    tokens, segments, labels, documents = rows(torch.Generator().manual_seed(0))
    whole = gradients(made(packed), interpret_loss(packed), [(tokens, segments, labels)])
    each = gradients(made(alone), interpret_loss(alone), [(x[None], y[None]) for x, y in documents])
    assert_near(whole, each)
    one = gradients(made(packed), interpret_loss(packed), [(tokens, torch.zeros_like(segments), labels)])
    assert abs(one["loss"] - each["loss"]) > 1e-3  # what a file without segments would give


@pytest.mark.parametrize("name", MIXERS)
def test_padding_in_front_of_a_row_or_behind_it_is_not_seen(name: str) -> None:
    model = mixed(MIXERS[name], **ENCODER).model
    module = made(graph_of(model)).eval()
    tokens = torch.randint(1, 96, (2, 9), generator=torch.Generator().manual_seed(1))
    alone = module(tokens)
    for front in (0, 3, 5):
        padded = torch.zeros(2, 14, dtype=torch.int64)
        padded[:, front : front + 9] = tokens
        assert torch.allclose(module(padded)[:, front : front + 9], alone, rtol=0, atol=1e-12)
    plain = made(graph_of(replace(model, pad=None))).eval()
    assert not torch.allclose(plain(padded)[:, 5:], alone, rtol=0, atol=1e-3)


@in_double()
@pytest.mark.parametrize("name", MIXERS)
def test_what_is_decoded_is_what_the_forward_gives(name: str) -> None:
    """In parts and token by token, in both backends."""
    model = mixed(MIXERS[name]).model
    file = load_file(source_of(model), "generated")
    module, tokens = noisy(file), prompt(model, 12)
    graph = second(lower(model), Layout())
    other = interpret(graph, dtype=torch.float64)
    init_weights(other, graph, 0)
    other.load_state_dict(module.state_dict())
    ours, theirs = file.Cache(15), Cache(15)
    found: list[Tensor] = []
    for part in tokens.split([5, 1, 4, 1, 1], 1):
        found.append(module.decode(part, ours))
        assert torch.equal(found[-1], other.eval()(part, theirs))
    near(torch.cat(found, 1), module(tokens))


def layout(stages: int = 1, **more: Any) -> Layout:
    return Layout(**{"pp": Pipeline(stages, "1f1b"), "microbatches": stages, **more})


LAYOUTS = (
    layout(2, tp=2, sequence_parallel=True, checkpoint=Checkpoint(every=1)),
    layout(dp=2, tp=2),
    layout(tp=2, generate=True),
)


@pytest.mark.parametrize("name", MIXERS)
@pytest.mark.parametrize("given", [LAYOUTS[0], *(pytest.param(x, marks=pytest.mark.matrix) for x in LAYOUTS[1:])])
def test_mixers_are_exact_in_every_layout(name: str, given: Layout) -> None:
    exact(mixed(MIXERS[name]), given)


@pytest.mark.parametrize("name", [pytest.param(name, marks=pytest.mark.matrix) for name in MIXERS])
def test_documents_are_exact_in_every_layout(name: str) -> None:
    component = mixed(MIXERS[name]).model.stacks[0].runs[0].blocks[0].sublayers[0].branches[0]
    spec = mixed(MIXERS[name], "inputs: [segments]")
    results = spec.model.tables.component(component.component).results(component.component)
    saved = Checkpoint(save=(f"{component.name}.{results[-2]}",))
    exact(spec, layout(2, tp=2, sequence_parallel=True, checkpoint=saved))
    exact(spec, layout(dp=2, checkpoint=Checkpoint(every=1)))


def exact(found: Spec, given: Layout) -> None:
    case = setting(found.model, given)
    found_rows = [*plain_relations(case, given), *layout_relations(case, given)]
    assert len(found_rows) > 8 and not [row for row in found_rows if not row.holds], describe(given)


@pytest.mark.parametrize("name", MIXERS)
def test_a_file_in_half_precision_generates(name: str) -> None:
    model = mixed(MIXERS[name]).model
    file = load_file(source_of(model, Layout(generate=True, precision="bf16")), "generated")
    module, tokens = noisy(file), prompt(model)
    assert module.decode(tokens, file.Cache(7)).dtype == torch.bfloat16
    assert file.generate(module, tokens, 4).shape == (3, 11)


def test_a_convolution_sees_its_own_document_and_what_comes_before() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 9, 3, generator=generator, dtype=torch.float64)
    weight, bias = torch.randn(3, 4, generator=generator).double(), torch.randn(3, generator=generator).double()
    first = torch.tensor([[0] * 9, [0, 0, 0, 3, 4, 4, 4, 4, 4]])
    want = torch.zeros_like(x)
    for row, at in ((row, at) for row in range(2) for at in range(9)):
        for back in range(4):
            if at - back >= first[row, at]:
                want[row, at] += weight[:, 3 - back] * x[row, at - back]
    assert torch.allclose(document_conv(x, weight, bias, first), want + bias, rtol=0, atol=1e-13)
    plain = causal_conv(x, weight, None)
    assert torch.allclose(plain[0], want[0], rtol=0, atol=1e-13)
    later = causal_conv(x[:, 5:], weight, None, x[:, 2:5])
    assert torch.allclose(later, plain[:, 5:], rtol=0, atol=1e-13)
    assert torch.equal(
        document_conv(x[:, :2], weight, None, first[:, :2]), document_conv(x, weight, None, first)[:, :2]
    )


def test_a_short_convolution_reads_as_one_writes_it() -> None:
    text = emit(mixed(MIXERS["short_conv"]), Layout(tp=2, sequence_parallel=True)).source
    for line in (
        "self.conv = SplitCausalConv(16, 4, tp)",
        "u = self.conv((self.b(x) * self.x(x)).transpose(0, 1)).transpose(0, 1)  # [seq, batch, channels/tp]",
    ):
        assert f"        {line}\n" in text
    assert ", first" not in text
