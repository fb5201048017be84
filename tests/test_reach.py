"""Windows and chunks: documents of a row, padding and generation see what each sequence alone would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from specc.emit import emit
from specc.interpret import interpret_loss
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify.run import in_double, load_file
from tests.graphs import graph_of, made
from tests.models import VOCAB
from tests.test_packing import PACKED, assert_near, gradients, rows

HEAD = "specc: 1\nname: reach\nd_model: 32\nvocab: 96\nmax_seq: 64\nnorm: {eps: 1e-2}\n"
BLOCKS = {
    "window": "attention: {heads: 4, window: 3, rope: {theta: 100}}",
    "chunk": "attention: {heads: 4, chunk: 4, rope: {theta: 100}}",
    "window both ways": "attention: {heads: 4, causal: false, window: 3}",
    "chunk both ways": "attention: {heads: 4, causal: false, chunk: 4, temperature: {floor: 3, scale: 0.5}}",
    "latents": "mla: {heads: 4, kv_rank: 8, nope_dim: 6, rope_dim: 4, window: 3, rope: {theta: 100}}",
    "slopes": "attention: {heads: 6, head_dim: 4, window: 5, alibi: {slopes: above}}",
    "buckets": "attention: {heads: 4, relative_bias: {buckets: 6, max_distance: 9}}",
    "buckets of each layer": "attention: {heads: 4, relative_bias: {shared: false}, alibi: true, sinks: true}",
    "sinks and a cap": "attention: {heads: 4, kv_heads: 2, window: 3, sinks: true, softcap: 2}",
}


def spec(text: str) -> Spec:
    found = load(Source("reach.yaml", HEAD + text))
    assert isinstance(found, Spec), found
    return found


@pytest.mark.parametrize("name", BLOCKS)
def test_documents_of_a_row_are_as_if_alone(name: str) -> None:
    model = spec(f"decoder: {{layers: 2, block: [{BLOCKS[name]}, ffn: {{hidden: 16}}]}}\n").model
    alone, packed = graph_of(model), graph_of(replace(model, inputs=PACKED))
    tokens, segments, labels, documents = rows(torch.Generator().manual_seed(0))
    assert model.vocab == VOCAB
    whole = gradients(made(packed), interpret_loss(packed), [(tokens, segments, labels)])
    each = gradients(made(alone), interpret_loss(alone), [(x[None], y[None]) for x, y in documents])
    assert_near(whole, each)


@in_double()
@pytest.mark.parametrize("name", ["chunk", "window", "latents", "slopes", "buckets", "sinks and a cap"])
def test_a_file_takes_documents_as_if_alone(name: str) -> None:
    model = spec(f"decoder: {{layers: 2, block: [{BLOCKS[name]}, ffn: {{hidden: 16}}]}}\n").model
    packed = replace(model, inputs=PACKED)
    files = [load_file(emit(Spec(one, (Layout(),)), Layout()).source, "reach") for one in (packed, model)]
    tokens, segments, labels, documents = rows(torch.Generator().manual_seed(1))
    ours, theirs = (file.build_model(torch.device("cpu"), 0) for file in files)
    whole = gradients(ours, files[0].loss, [(tokens, segments, labels)])
    assert_near(whole, gradients(theirs, files[1].loss, [(x[None], y[None]) for x, y in documents]))


@pytest.mark.parametrize(
    "reach",
    [
        "window: 3",
        "chunk: 4",
        "alibi: true",
        "window: 3, softcap: 2",
        "relative_bias: {buckets: 8, max_distance: 9}",
        "causal: true, window: 3",
    ],
)
def test_padding_changes_nothing(reach: str) -> None:
    """Of an encoder: rows of several lengths in one batch, and each alone."""
    text = f"pad: 0\nencoder: {{layers: 2, block: [attention: {{heads: 4, {reach}}}, ffn: {{hidden: 16}}]}}\n"
    graph = graph_of(spec(text).model)
    module = made(graph)
    tokens = torch.randint(1, 96, (3, 13), generator=torch.Generator().manual_seed(2))
    lengths = (13, 9, 2)
    for row, length in enumerate(lengths):
        tokens[row, length:] = 0
    labels = tokens.masked_fill(tokens.eq(0), -100)
    together = gradients(module, interpret_loss(graph), [(tokens, labels)])
    each = [(tokens[n : n + 1, :length], labels[n : n + 1, :length]) for n, length in enumerate(lengths)]
    assert_near(together, gradients(module, interpret_loss(graph), each))


@in_double()
@pytest.mark.parametrize(
    "name", ["window", "chunk", "latents", "slopes", "buckets", "buckets of each layer", "sinks and a cap"]
)
def test_generation_sees_what_training_does(name: str) -> None:
    text = f"decoder: {{layers: 2, block: [{BLOCKS[name]}, ffn: {{hidden: 16}}]}}\nlayout: {{generate: true}}\n"
    found = spec(text)
    file = load_file(emit(found, found.layout()).source, "reach")
    module = file.build_model(torch.device("cpu"), 0)
    tokens = torch.randint(96, (2, 5), generator=torch.Generator().manual_seed(3))
    made = file.generate(module, tokens, 9)
    again = tokens
    for _ in range(9):
        again = torch.cat((again, module(again)[:, -1:].argmax(-1)), dim=1)
    assert torch.equal(made, again)
    cache = file.Cache(14)
    logits = torch.cat([module.decode(part, cache) for part in again.split((5, *[1] * 9), dim=1)], dim=1)
    assert torch.allclose(logits, module(again), rtol=0, atol=1e-12)
