"""What the trainer of a generated file sums up, and what it refuses: on ranks, or with no rank but this one."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from specc.emit import emit
from specc.source import Source
from specc.spec import load
from specc.spec.core import Layout, Model, Pipeline, Spec
from specc.verify.course import LR, SEED
from specc.verify.launch import run_ranks
from specc.verify.relations import setting
from specc.verify.run import load_file, world_size
from tests.comm import fake_group
from tests.files import file_of, on_meta
from tests.models import VOCAB, llama, transformer
from tests.zoo import ROOT

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


# --- words at the borders ---------------------------------------------------------------------------


def complains(source: str, sizes: tuple[int, ...], *batch: Tensor) -> Refusal:
    """What a rank raises while it builds its trainer, or takes that batch."""
    file = load_file(source, "file")
    try:
        file.Trainer(file.device_mesh("cpu"), CPU, *sizes, seed=SEED, lr=LR).evaluate(*batch)
    except Exception as error:
        return type(error).__name__, str(error)
    return "", ""


def ids(rows: int, seq: int) -> Tensor:
    return torch.ones(rows, seq, dtype=torch.int64)


UNLIKE = "are given; all must be int64, and labels of the shape of what they label"
NO_PAD = replace(transformer(layers=1), pad=None)
BORDERS = [
    (
        (llama(layers=2), Layout(tp=2, sequence_parallel=True), (4, 15), ids(4, 15), ids(4, 15)),
        "sequences of 15 tokens cannot be cut into equal parts for tp = 2",
    ),
    (
        (llama(layers=2), Layout(dp=2, microbatches=2), (3, 8), ids(3, 8), ids(3, 8)),
        "a batch of 3 cannot be cut into 2 equal microbatches",
    ),
    (
        (llama(layers=2), Layout(tp=2), (4, 8), ids(4, 8), ids(4, 8).int()),
        f"tokens int64 (4, 8), labels int32 (4, 8) {UNLIKE}",
    ),
    (
        (llama(layers=2), Layout(tp=2), (4, 8), ids(4, 8), ids(4, 7)),
        f"tokens int64 (4, 8), labels int64 (4, 7) {UNLIKE}",
    ),
    (
        (NO_PAD, Layout(tp=2), (4, 8, 6), ids(4, 7), ids(4, 6), ids(4, 6)),
        "source of 7 tokens cannot be filled up to 8: other tokens would see that",
    ),
    (
        (transformer(layers=1), Layout(tp=2), (4, 8, 6), ids(3, 8), ids(4, 6), ids(4, 6)),
        "source int64 (3, 8), target int64 (4, 6), labels int64 (4, 6) are given, "
        "but the trainer is built for at most (4, 8), (4, 6), (4, 6)",
    ),
]


@pytest.mark.parametrize(("given", "problem"), BORDERS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_cannot_be_taken_is_told(given: tuple[Model, Layout, tuple[int, ...], Tensor], problem: str) -> None:
    model, layout, sizes, *batch = given
    answers = run_ranks(2, complains, source_of(model, layout), sizes, *batch, timeout=60.0)
    assert answers == [("ValueError", problem)] * 2


def norm_of_fours(source: str) -> tuple[float, list[Tensor]]:
    """Norm of gradients of half precision that are all 4, and what clipping leaves of them."""
    torch.set_default_dtype(torch.float16)
    file = load_file(source, "file")
    trainer = file.Trainer(file.device_mesh("cpu"), CPU, 4, 8, seed=SEED, lr=LR)
    for p in trainer.module.parameters():
        p.grad = torch.full_like(p, 4.0)
    norm = trainer.clip_gradients(1.0)
    local = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in trainer.module.parameters()]
    return norm.item(), [grad.float() for grad in local]


@pytest.mark.parametrize("layout", [Layout(tp=2), Layout(dp=2), Layout(pp=Pipeline(2), microbatches=2)], ids=repr)
def test_a_norm_beyond_half_precision_is_a_number(layout: Layout) -> None:
    """The sum of squares is, and it is that of one process."""
    numbers = sum(p.numel() for p in on_meta(file_of(WIDE)).parameters())
    true = 4 * numbers**0.5
    assert 16 * numbers > torch.finfo(torch.float16).max
    for norm, grads in run_ranks(2, norm_of_fours, source_of(WIDE, layout)):
        grads = [torch.as_tensor(grad) for grad in grads]
        assert norm == pytest.approx(true, rel=1e-5)
        assert all(torch.allclose(grad, torch.full_like(grad, 4 / true), rtol=2e-3) for grad in grads)


WIDE = llama(layers=2, hidden=256)


class Waits(TorchDispatchMode):
    """Raises where a number leaves the device."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.is_nonzero.default):
            raise RuntimeError(f"{func} waits for the device")
        return func(*args, **(kwargs or {}))


def step_without_waiting(source: str) -> bool:
    """After a first step, which makes what is made once."""
    file = load_file(source, "file")
    sizes = (file.device_mesh("cpu"), CPU, 4, 8) if hasattr(file, "device_mesh") else (CPU,)
    trainer = file.Trainer(*sizes, seed=SEED, lr=LR)
    trainer.evaluate(ids(4, 8), ids(4, 8))
    trainer.step(ids(4, 8), ids(4, 8))
    with Waits():
        trainer.step(ids(4, 8), ids(4, 8))
    with pytest.raises(RuntimeError, match="waits"), Waits():
        trainer.optimizer.found_inf.item()
    return True


@pytest.mark.parametrize(
    "layout",
    [Layout(microbatches=2), Layout(tp=2), Layout(dp=2, microbatches=2), Layout(pp=Pipeline(2), microbatches=2)],
    ids=repr,
)
def test_no_step_waits_for_the_device(layout: Layout) -> None:
    source = source_of(llama(layers=2, tied=True), layout)
    assert step_without_waiting(source) if world_size(layout) == 1 else all(run_ranks(2, step_without_waiting, source))


def test_a_vocabulary_that_no_tp_divides_goes_with_dp() -> None:
    found = load(Source("s.yaml", (ROOT / "specs" / "gpt2.yaml").read_text() + "layout: {tp: 2, dp: 2}\n"))
    assert isinstance(found, Spec) and found.model.vocab == 50257, found
    assert "whole(logits, 50257" in emit(found, found.layout()).source
