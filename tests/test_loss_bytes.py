"""The loss holds one copy of the logits in REDUCE, and makes their gradient in it; the update makes nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from specc.kernels import loss, parallel_loss
from specc.spec.core import Layout
from specc.verify.launch import run_ranks
from specc.verify.run import load_file
from tests.comm import fake_group
from tests.counting import Counting
from tests.files import source_of
from tests.models import llama
from tests.test_kernels import mesh

ROWS, LENGTH, VOCAB = 2, 16, 4096
TOKENS = ROWS * LENGTH
WHOLE = TOKENS * VOCAB * 4
Loss = Callable[[Tensor, Tensor], Tensor]


def losses() -> dict[str, tuple[Loss, int]]:
    """Each with the bytes of a token that it saves beside its copy; VOCAB is what a rank has."""
    tp = mesh(2)
    return {
        "whole": (loss.cross_entropy, 8),  # labels
        "whole, changed": (lambda x, y: loss.cross_entropy_of(x, y, 0.1, 0.1), 8 + 1 + 4),  # columns, real, normalisers
        "split": (lambda x, y: parallel_loss.split_cross_entropy(x, y, 2 * VOCAB, tp), 2 * 4 + 8 + 1 + 1),
        "split, changed": (lambda x, y: parallel_loss.split_cross_entropy_of(x, y, 2 * VOCAB, tp, 0.1, 0.1), 22),
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["whole", "whole, changed", "split", "split, changed"])
def test_one_copy_is_saved_and_becomes_the_gradient(name: str, dtype: torch.dtype) -> None:
    with fake_group(2):
        function, beside = losses()[name]
        logits = torch.randn(ROWS, LENGTH, VOCAB, dtype=dtype).requires_grad_()
        labels = torch.randint(VOCAB, (ROWS, LENGTH))
        copies = 2 if name.startswith("whole") and dtype != torch.float32 else 1  # the CPU casts before log_softmax
        with Counting() as held:
            value = function(logits, labels)
            assert held.bytes == WHOLE + beside * TOKENS
            assert held.peak <= 1.01 * copies * WHOLE
            held.peak = 0
            (gradient,) = torch.autograd.grad(value, logits)
        assert gradient.dtype == dtype
        assert held.peak <= (1.01 if dtype == torch.float32 else 1.51) * WHOLE


@pytest.mark.parametrize("name", ["whole", "whole, changed", "split", "split, changed"])
def test_what_backward_overwrites_is_not_read_again(name: str) -> None:
    """A second backward, or one of a gradient, is an error and never another number."""
    with fake_group(2):
        function, _ = losses()[name]
        logits = torch.randn(ROWS, LENGTH, 8).requires_grad_()
        labels = torch.randint(8, (ROWS, LENGTH))
        value = function(logits, labels)
        torch.autograd.grad(value, logits, retain_graph=True)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            torch.autograd.grad(value, logits)
        (gradient,) = torch.autograd.grad(function(logits, labels), logits, create_graph=True)
        with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
            gradient.sum().backward()


def compiled() -> list[float]:
    """How far values and gradients of compiled losses are from those of eager ones, in float64 and under autocast."""
    loss.REDUCE = parallel_loss.REDUCE = torch.float64  # of this process
    generator = torch.Generator().manual_seed(torch.distributed.get_rank())
    labels = torch.randint(8, (ROWS, LENGTH), generator=torch.Generator().manual_seed(2))
    labels[0, 3] = -100
    logits = torch.randn(ROWS, LENGTH, 4, generator=generator, dtype=torch.float64)
    off: list[float] = []
    for name, (function, _) in losses().items():
        x = (torch.cat((logits, -logits), -1) if "whole" in name else logits).requires_grad_()
        split = function if "whole" in name else narrowed(name)
        wanted = split(x, labels)
        (gradient,) = torch.autograd.grad(wanted, x)
        for fast in (torch.compile(split, backend="aot_eager", fullgraph=True), split):
            with torch.autocast("cpu", torch.bfloat16, enabled=fast is split):
                found = fast(x, labels)
            (again,) = torch.autograd.grad(found, x)
            off += [(found - wanted).abs().item(), (again - gradient).abs().max().item()]
    return off


def narrowed(name: str) -> Loss:
    tp = mesh(2)
    if "changed" in name:
        return lambda x, y: parallel_loss.split_cross_entropy_of(x, y, 8, tp, 0.1, 0.1)
    return lambda x, y: parallel_loss.split_cross_entropy(x, y, 8, tp)


def test_losses_compile_and_are_the_same_under_autocast() -> None:
    for off in run_ranks(2, compiled, timeout=300.0):
        assert len(off) == 16 and max(off) < 1e-12, off


@pytest.mark.parametrize(("kind", "makes"), [("fused=True", False), ("foreach=True", True), ("foreach=False", True)])
def test_the_update_of_a_file_makes_nothing(kind: str, makes: bool) -> None:
    """Once there are states; other kinds make copies of parameters, of all or of one at a time."""
    file = load_file(source_of(llama(layers=1), Layout()).replace("fused=True", kind), "file")
    trainer = file.Trainer(torch.device("cpu"), seed=0, lr=1e-3)
    tokens = torch.arange(8).view(1, -1)
    trainer.forward_backward(tokens, tokens)
    trainer.optimizer.step()
    held = {x.untyped_storage()._cdata for p in trainer.module.parameters() for x in (p, p.grad)}
    held |= {x.untyped_storage()._cdata for state in trainer.optimizer.state.values() for x in state.values()}
    with Counting(held) as made:
        trainer.optimizer.step()
    assert (made.peak > 0) == makes
