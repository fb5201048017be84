"""Several documents in a row, and padding in front: each as if it were alone, in every layout."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from specc.emit import emit
from specc.interpret import interpret_loss
from specc.kernels.positions import document_starts
from specc.lower import lower
from specc.passes import compile_graph, typed
from specc.spec.core import Checkpoint, Layout, Pipeline, Spec
from specc.verify.launch import run_ranks
from specc.verify.relations import layout_relations, plain_relations, setting
from specc.verify.run import in_double, load_file, world_size
from tests import zoo
from tests.graphs import graph_of, made
from tests.models import MODELS as EVERY
from tests.models import SINUSOIDS, VOCAB, gpt2, llama, patterned

PACKED = ("segments",)
LENGTHS = ((5, 1, 9), (15,), (4, 11), (3, 2, 10))  # of the documents of each row
SINUSOIDAL = replace(llama(), embed=replace(llama().embed, positions=SINUSOIDS))
MODELS = {
    "rope": llama(),
    "learned": gpt2(),
    "sinusoidal": SINUSOIDAL,
    "several ropes": patterned(),
    "not causal": zoo.spec("packed-tiny").model,
}


def rows(generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor, list[tuple[Tensor, Tensor]]]:
    """Tokens, segments and labels [row, 15], and each document with its labels. The first of the last row is padding.

    Numbers of segments come again in a row, and none is like its neighbours. A document's last label is hidden, for
    the token behind it is another's.
    """
    tokens = torch.randint(VOCAB, (len(LENGTHS), 15), generator=generator)
    segments, labels = torch.zeros_like(tokens), torch.full_like(tokens, -100)
    documents: list[tuple[Tensor, Tensor]] = []
    for row, lengths in enumerate(LENGTHS):
        ends = torch.tensor((0, *lengths)).cumsum(0).tolist()
        for n, (start, end) in enumerate(pairwise(ends)):
            segments[row, start:end] = n % 2
            if row < len(LENGTHS) - 1 or n:
                labels[row, start : end - 1] = tokens[row, start + 1 : end]
                documents.append((tokens[row, start:end], labels[row, start:end]))
    return tokens, segments, labels, documents


def gradients(module: nn.Module, loss: Any, batches: list[tuple[Tensor, ...]]) -> dict[str, Tensor]:
    """Of the summed loss of batches: inputs, then labels."""
    module.zero_grad()
    total = torch.zeros((), dtype=torch.float64)
    for *inputs, labels in batches:
        total = total + loss(module(*inputs), labels, torch.ones((), dtype=torch.float64))
    total.backward()
    found = {"loss": total.detach()}
    for name, p in module.named_parameters():
        assert p.grad is not None
        found[name] = p.grad.clone()
    return found


def assert_near(ours: dict[str, Tensor], theirs: dict[str, Tensor], bound: float = 1e-12) -> None:
    assert list(ours) == list(theirs)
    for name, value in theirs.items():
        assert bool(value.isfinite().all()) and bool((value != 0).any()), name
        assert torch.allclose(ours[name], value, rtol=0, atol=bound), name


@pytest.mark.parametrize("name", MODELS)
def test_documents_of_a_row_are_as_if_alone(name: str) -> None:
    model = replace(MODELS[name], inputs=(), vocab=VOCAB)
    alone, packed = graph_of(model), graph_of(replace(model, inputs=PACKED))
    generator = torch.Generator().manual_seed(0)
    tokens, segments, labels, documents = rows(generator)
    whole = gradients(made(packed), interpret_loss(packed), [(tokens, segments, labels)])
    each = gradients(made(alone), interpret_loss(alone), [(x[None], y[None]) for x, y in documents])
    assert_near(whole, each)
    one = gradients(made(packed), interpret_loss(packed), [(tokens, torch.zeros_like(segments), labels)])
    assert abs(one["loss"] - each["loss"]) > 1e-3  # what a file without segments would give


@in_double()
def test_a_file_takes_documents_as_if_alone() -> None:
    model = replace(zoo.spec("packed-tiny").model, vocab=VOCAB)
    file = load_file(emit(Spec(model, (Layout(),)), Layout()).source, "packed")
    unpacked = replace(model, inputs=())
    plain = load_file(emit(Spec(unpacked, (Layout(),)), Layout()).source, "plain")
    tokens, segments, labels, documents = rows(torch.Generator().manual_seed(1))
    packed, alone = (made.build_model(torch.device("cpu"), 0) for made in (file, plain))
    ours = gradients(packed, file.loss, [(tokens, segments, labels)])
    assert_near(ours, gradients(alone, plain.loss, [(x[None], y[None]) for x, y in documents]))


LAYOUTS = {
    "tp sp pp": Layout(tp=2, sequence_parallel=True, pp=Pipeline(2), microbatches=2),
    "tp dp saved": Layout(tp=2, dp=2, checkpoint=Checkpoint(save=("attention.core",))),
    "dp pp full": Layout(dp=2, pp=Pipeline(2), microbatches=2, checkpoint=Checkpoint(every=1)),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_documents_are_the_same_in_every_layout(layout: Layout) -> None:
    model = replace(zoo.spec("packed-tiny").model, vocab=96)
    found = setting(model, layout)
    results = [*plain_relations(found, layout), *layout_relations(found, layout)]
    assert len(results) > 8 and not [row for row in results if not row.holds]


@pytest.mark.parametrize("name", [*EVERY, "packed"])
def test_only_what_has_gradients_crosses_cuts(name: str) -> None:
    model = EVERY.get(name, replace(llama(layers=8), inputs=PACKED))
    deeper = tuple(replace(stack, runs=(replace(stack.runs[0], layers=8),)) for stack in model.stacks)
    graph = compile_graph(lower(replace(model, stacks=deeper)), Layout(tp=2, pp=Pipeline(4)))
    sent = [out for op in graph.ops if op.kind == "cut" for out in op.outs]
    assert sent and all(out.grad for out in sent)
    fed = [op.hint for op in graph.passed]
    assert fed == {"packed": ["segments"], "transformer": ["source", "target"]}.get(name, [])


def trained(layout: Layout, source: str, sizes: dict[str, Tensor]) -> tuple[Tensor, ...] | None:
    """A step of this rank's trainer, its sum of losses after it, and logits."""
    torch.set_default_dtype(torch.float64)
    file = load_file(source, "packed")
    mesh, (rows, length) = file.device_mesh("cpu"), sizes["tokens"].shape
    trainer = file.Trainer(mesh, torch.device("cpu"), rows // layout.dp, length, seed=0, lr=1e-2)
    rank = mesh.get_local_rank("dp") if layout.dp > 1 else 0
    fed = [x.chunk(layout.dp)[rank].contiguous() for x in sizes.values()]
    value, norm = trainer.step(*fed)
    logits = trainer.predict(*fed[:-1])
    found = (value, norm, trainer.evaluate(*fed))
    return None if logits is None else (*found, logits.detach())


@in_double()
@pytest.mark.parametrize("layout", list(LAYOUTS.values())[::2], ids=list(LAYOUTS)[::2])
def test_trainers_take_documents(layout: Layout) -> None:
    """A step, the loss behind it and logits, as one device has them."""
    model = replace(zoo.spec("packed-tiny").model, vocab=96)
    alone, spec = Layout(), Spec(model, (layout,))
    tokens, segments, labels, _ = rows(torch.Generator().manual_seed(2))
    tokens, segments, labels = (x[:, :14].contiguous() for x in (tokens, segments, labels))
    file = load_file(emit(Spec(model, (alone,)), alone).source, "packed")
    trainer = file.Trainer(torch.device("cpu"), seed=0, lr=1e-2)
    first = trainer.step(tokens, segments, labels)
    want = (*first, trainer.evaluate(tokens, segments, labels))
    logits = trainer.predict(tokens, segments)
    fed = {"tokens": tokens, "segments": segments, "labels": labels}
    results = [r for r in run_ranks(world_size(layout), trained, layout, emit(spec, layout).source, fed) if r]
    assert len(results) >= layout.dp
    for *values, mine in results:
        for ours, theirs in zip(values, want, strict=True):
            assert torch.allclose(torch.as_tensor(ours).double(), theirs.double(), rtol=0, atol=1e-10)
        assert any(torch.allclose(torch.as_tensor(mine), part, rtol=0, atol=1e-10) for part in logits.chunk(layout.dp))


def test_starts_of_runs() -> None:
    segments = torch.tensor([[0, 0, 1, 1, 0, 2], [3, 3, 3, 3, 3, 3], [1, 2, 3, 3, 3, 1]])
    assert document_starts(segments).tolist() == [[0, 0, 2, 2, 4, 5], [0] * 6, [0, 1, 2, 2, 2, 5]]


def test_a_mask_that_knows_documents_is_no_flag() -> None:
    graph = typed(lower(replace(llama(), inputs=PACKED)))
    assert [(op.attr("causal"), len(op.inputs)) for op in graph.ops if op.kind == "attention"] == [(False, 4)]
