"""What the trainer of a generated file sums up, and what it refuses: on ranks, or with no rank but this one."""

from __future__ import annotations

import re
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor

from specc.emit import emit
from specc.spec.core import Layout, Model, Pipeline, Spec
from specc.verify.launch import run_ranks
from specc.verify.relations import setting
from specc.verify.run import LR, SEED, load_file
from tests.comm import fake_group
from tests.models import VOCAB, llama, transformer

CPU = torch.device("cpu")
TIED = Layout(pp=Pipeline(2, "1f1b"), microbatches=2)
Refusal = tuple[str, str]
BUILT = "are given, but the trainer is built for at most (4, 8), (4, 8)"


@cache
def source_of(model: Model, layout: Layout) -> str:
    return emit(Spec(model, (layout,)), layout).source


def gradients(source: str, inputs: tuple[Tensor, ...], labels: Tensor, calls: int) -> dict[str, Tensor]:
    """Of a stage, after so many calls that each add the same."""
    torch.set_default_dtype(torch.float64)
    file = load_file(source, "file")
    lengths = [x.size(1) for x in inputs]
    trainer = file.Trainer(file.device_mesh("cpu"), CPU, len(labels), *lengths, seed=SEED, lr=LR)
    trainer.module.eval()
    for _ in range(calls):
        trainer.forward_backward(*inputs, labels)
    grads = {name: p.grad for name, p in trainer.module.named_parameters()}
    return {name: grad.full_tensor() if isinstance(grad, DTensor) else grad for name, grad in grads.items()}


@pytest.mark.parametrize("model", [llama(layers=2, tied=True), transformer(layers=1)], ids=["decoder", "pair"])
def test_gradients_of_several_calls_add_up(model: Model) -> None:
    """Those of weights that several stages hold, too: each call's are summed over the stages once."""
    found = setting(model, TIED)
    arguments = (source_of(model, TIED), found.batch.inputs, found.batch.labels)
    once, thrice = (run_ranks(2, gradients, *arguments, calls) for calls in (1, 3))
    for one, three in zip(once, thrice, strict=True):
        for name, grad in one.items():
            assert abs(3 * grad - three[name]).max() <= 1e-12, name


def refused(source: str, batch: int, seq: int, tokens: Tensor, labels: Tensor) -> Refusal:
    """What this rank raises."""
    file = load_file(source, "file")
    try:
        trainer = file.Trainer(file.device_mesh("cpu"), CPU, batch, seq, seed=SEED, lr=LR)
        trainer.forward_backward(tokens, labels)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


@pytest.mark.parametrize(
    ("batch", "given", "problem"),
    [
        (3, (3, 8), "a batch of 3 cannot be cut into 2 equal microbatches"),
        (
            4,
            (5, 8),
            f"tokens int64 (5, 8), labels int64 (5, 8) {BUILT}",
        ),
        (
            4,
            (4, 9),
            f"tokens int64 (4, 9), labels int64 (4, 9) {BUILT}",
        ),
        (
            4,
            (8,),
            f"tokens int64 (8,), labels int64 (8,) {BUILT}",
        ),
    ],
)
def test_batches_of_another_shape_are_refused_on_every_rank(batch: int, given: tuple[int, ...], problem: str) -> None:
    tokens = torch.zeros(given, dtype=torch.int64)
    answers = run_ranks(2, refused, source_of(llama(layers=2), TIED), batch, 8, tokens, tokens, timeout=30.0)
    assert answers == [("ValueError", problem)] * 2


def lost(source: str, tokens: Tensor, labels: Tensor) -> Refusal:
    """What a rank of tp raises in a step."""
    file = load_file(source, "file")
    trainer = file.Trainer(file.device_mesh("cpu"), CPU, *tokens.shape, seed=SEED, lr=LR)
    try:
        trainer.forward_backward(tokens, labels)
    except (IndexError, RuntimeError) as error:
        return type(error).__name__, str(error)
    return "", ""


@pytest.mark.parametrize("vocab", [VOCAB, VOCAB + 1])
def test_ids_that_no_rank_has_raise_on_every_rank(vocab: int) -> None:
    """As they do on one device; -100 is the only label that means none."""
    source = source_of(llama(vocab=vocab), Layout(tp=2))
    fine = torch.arange(vocab).view(1, -1)
    assert run_ranks(2, lost, source, fine, fine.masked_fill(fine == 3, -100)) == [("", "")] * 2
    for bad in (-1, vocab, vocab + 50):
        for pair in ((fine.where(fine != 5, bad), fine), (fine, fine.where(fine != 5, bad))):
            for _, message in run_ranks(2, lost, source, *pair):
                assert re.search("out of (range|bounds)", message), (bad, message)


def test_a_mesh_needs_the_ranks_of_its_layout() -> None:
    layouts = (
        (3, Layout(tp=2, dp=2), "this file needs dp x tp 2 ranks, a multiple of 2; there are 3"),
        (3, Layout(tp=2), "this file needs 2 ranks; there are 3"),
        (4, Layout(tp=2), "this file needs 2 ranks; there are 4"),
        (3, Layout(tp=2, pp=Pipeline(2)), "this file needs 2 stages x tp 2 = 4 ranks; there are 3"),
        (3, Layout(dp=2, pp=Pipeline(2)), "this file needs 2 stages x dp ranks, a multiple of 2; there are 3"),
    )
    for world, layout, told in layouts:
        file = load_file(source_of(llama(layers=2), layout), "file")
        with fake_group(world), pytest.raises(ValueError, match=re.escape(told)):
            file.device_mesh("cpu")
    file = load_file(source_of(llama(), Layout(tp=2, dp=2)), "file")
    with fake_group(8):
        assert tuple(file.device_mesh("cpu").shape) == (4, 2)  # dp takes what there is


def losses(source: str, logits: Tensor, labels: Tensor) -> tuple[float, Tensor]:
    """Of the part of the logits that is this rank's, and their gradient."""
    file = load_file(source, "file")
    tp = file.device_mesh("cpu")["tp"]
    own = logits.chunk(2, -1)[tp.get_local_rank()].requires_grad_()
    value = file.loss(own, labels, 1.0, tp=tp)
    value.backward()
    assert own.grad is not None and own.grad.dtype == logits.dtype
    return value.item(), own.grad.float()


def test_losses_of_half_precision_are_computed_in_single() -> None:
    """A sure prediction has a loss that bfloat16 cannot tell from 0."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(VOCAB, (4, 32), generator=generator)
    logits = torch.randn(4, 32, VOCAB, generator=generator) + 12 * F.one_hot(labels, VOCAB)
    half = logits.bfloat16()
    wanted = half.double().requires_grad_()
    true = F.cross_entropy(wanted.flatten(0, 1), labels.flatten(), reduction="sum")
    true.backward()
    alone = load_file(source_of(llama(), Layout()), "file").loss
    own = half.clone().requires_grad_()
    value = alone(own, labels, 1.0)
    value.backward()
    answers = run_ranks(2, losses, source_of(llama(), Layout(tp=2)), half, labels)
    ours = torch.cat([torch.as_tensor(grad) for _, grad in answers], -1)
    assert own.grad is not None and wanted.grad is not None
    for found, grad in ((value.item(), own.grad), *((each, ours) for each, _ in answers)):
        assert found == pytest.approx(true.item(), rel=1e-5)
        assert (grad - wanted.grad).abs().max() <= 2**-8 * wanted.grad.abs().max()
