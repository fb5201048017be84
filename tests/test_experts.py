"""Mixtures of experts: the kernels by themselves, the model in layouts, and what runs again in backward."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from specc.emit import emit
from specc.kernels import experts, random, routing
from specc.lower import lower
from specc.passes import run
from specc.passes.legality import legality
from specc.spec.core import Checkpoint, Layout, Pipeline
from specc.verify.relations import describe, layout_relations, plain_relations, setting
from specc.verify.run import load_file, world_size
from tests import zoo
from tests.test_frame import made

FULL = Checkpoint(every=1)


def pipeline(stages: int, **more: Any) -> Layout:
    return Layout(pp=Pipeline(stages, "1f1b"), microbatches=stages, **more)


EXACT = (
    Layout(checkpoint=FULL),
    Layout(tp=2, sequence_parallel=True, checkpoint=Checkpoint(save=("moe.route", "moe.up", "attention.core"))),
    pipeline(2, tp=2, dp=2, checkpoint=FULL),
    *(
        pytest.param(layout, marks=pytest.mark.matrix, id=describe(layout))
        for layout in (
            Layout(microbatches=3),
            Layout(tp=2, checkpoint=Checkpoint(every=2)),
            Layout(dp=2, checkpoint=Checkpoint(save=("moe.dispatch", "moe.combine"))),
            pipeline(3, tp=2, sequence_parallel=True, checkpoint=FULL),
            pipeline(2, tp=2, sequence_parallel=True, precision="bf16", checkpoint=FULL),
            pipeline(4, dp=2),
        )
    ),
)


@pytest.mark.parametrize("name", ["experts-tiny", "routed-tiny"])
@pytest.mark.parametrize("layout", EXACT, ids=describe)
def test_layouts_agree(layout: Layout, name: str) -> None:
    model = zoo.model(name)
    for step, graph in run(lower(model), layout):
        legality(graph, layout, after=step)
    found = setting(model, layout)
    rows = plain_relations(found, layout)
    if world_size(layout) > 1:
        rows += layout_relations(found, layout)
    assert not [row for row in rows if not row.holds]


IDS = torch.tensor([[[0, 3], [3, 1], [0, 1]], [[3, 0], [1, 3], [3, 1]]])
"""[batch, seq, top_k]; nobody goes to expert 2."""


def noise(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 0.1)])
@pytest.mark.parametrize("size", [16, 6])
def test_experts_are_linears_of_the_tokens_that_go_to_them(size: int, dtype: torch.dtype, bound: float) -> None:
    """By a product of groups where torch has one, else one by one; an expert may have no token."""
    x, gates = noise(2, 3, size, dtype=dtype), noise(2, 3, 2, seed=1, dtype=dtype)
    weight, bias = noise(4, 24, size, seed=2, dtype=dtype), noise(4, 24, seed=3, dtype=dtype)
    rows, owner, order = experts.dispatch(x, IDS)
    actual = experts.combine(experts.grouped_linear(rows, owner, weight, bias), gates, order)
    dense = torch.einsum("bsd,eod->bseo", x, weight) + bias
    chosen = dense.gather(2, IDS.unsqueeze(-1).expand(-1, -1, -1, 24))
    expected = (chosen * gates.unsqueeze(-1)).sum(2)
    probe = noise(2, 3, 24, seed=4, dtype=dtype).detach()
    inputs = (x, gates, weight, bias)
    ours, theirs = (torch.autograd.grad((out * probe).sum(), inputs) for out in (actual, expected))
    for a, b in zip((actual, *ours), (expected, *theirs), strict=True):
        assert a.shape == b.shape and bool((a - b).abs().max() <= bound * max(1.0, b.abs().max().item()))
    assert not ours[2][2].any() and bool(ours[2][3].all())


@pytest.mark.parametrize("of", ["output", "input"])
def test_choices_that_are_no_experts_give_back_what_they_are_given(of: str) -> None:
    """Of four choices two are experts; a weight counts once, before or behind them."""
    x, gates, weight, bias = noise(2, 3, 5), noise(2, 3, 2, seed=1), noise(2, 5, 5, seed=2), noise(2, 5, seed=3)
    if of == "input":
        rows, owner, order = experts.dispatch_weighted(x, IDS, gates, 2)
        out = experts.collect(experts.grouped_linear(rows, owner, weight), IDS, order) + experts.some_bias(IDS, bias)
    else:
        rows, owner, order = experts.dispatch_some(x, IDS, 2)
        out = experts.combine_some(experts.grouped_linear(rows, owner, weight), gates, order)
        out = out + experts.some_bias(IDS, bias, gates)
    assert len(rows) == len(owner) == len(order) == 7 and bool((owner < 2).all())
    actual = out + experts.returned(x, gates, IDS, 2)
    expected = torch.zeros_like(x)
    for n in range(2):
        for at in range(6):
            b, s, choice = at // 3, at % 3, int(IDS.view(6, 2)[at, n])
            token, gate, one = x[b, s], gates[b, s, n], F.one_hot(torch.tensor(at), 6).view(2, 3, 1)
            given = token * gate if of == "input" else token
            made = token * gate if choice > 1 else weight[choice] @ given + bias[choice]
            expected = expected + one * (made * gate if of == "output" and choice < 2 else made)
    probe, inputs = noise(2, 3, 5, seed=4).detach(), (x, gates, weight, bias)
    ours, theirs = (torch.autograd.grad((y * probe).sum(), inputs) for y in (actual, expected))
    for a, b in zip((actual, *ours), (expected, *theirs), strict=True):
        assert a.shape == b.shape and torch.allclose(a, b, rtol=0, atol=1e-13)


def test_noise_is_around_one_and_in_training_alone() -> None:
    x = noise(400, 50)
    torch.manual_seed(0)
    factors = random.jitter(x, 0.25, True) / x
    assert 0.75 <= factors.min() < 0.76 and 1.24 < factors.max() <= 1.25 and abs(factors.mean() - 1) < 0.01
    assert random.jitter(x, 0.25, False) is x


def test_interpreter_and_file_draw_the_same_noise() -> None:
    tokens = torch.randint(32, (6, 5), generator=torch.Generator().manual_seed(0))
    ours, file = made(
        "decoder: {layers: 2, block: [{moe: {experts: 4, top_k: 2, hidden: 8, router: {jitter: 0.3}}}]}\n"
    )
    outs: list[Tensor] = []
    for module, training in ((ours, True), (file, True), (file, False)):
        torch.manual_seed(3)
        outs.append(module.train(training)(tokens))
    assert torch.equal(outs[0], outs[1]) and not torch.equal(outs[1], outs[2])


def test_biases_of_the_last_linear_are_weighted_sums() -> None:
    gates, bias = noise(2, 3, 2), noise(4, 5, seed=1)
    expected = torch.einsum("bsk,bskd->bsd", gates, bias[IDS])
    assert torch.allclose(experts.expert_bias(gates, IDS, bias), expected, rtol=0, atol=1e-14)


def test_a_balance_is_that_of_the_paper_for_each_token() -> None:
    """Fedus et al. 2021, equations 4 to 6, with several choices: each row by itself."""
    logits = noise(2, 3, 4)
    scores = logits.softmax(-1)
    expected = logits.new_zeros(())
    for row, ids in zip(scores, IDS, strict=True):
        shares = torch.stack([(ids == n).any(-1).double().mean() for n in range(4)])
        expected = expected + 3 * 4 * (shares * row.mean(0)).sum()
    used = routing.usage(IDS, 4, 1)
    assert torch.equal(used, torch.tensor([[2, 2, 0, 2], [1, 2, 0, 3]]))
    assert torch.equal(routing.usage(IDS.transpose(0, 1), 4, 0), used)
    assert torch.allclose(routing.balance(used, scores.sum(1), 2), expected, rtol=0, atol=1e-13)


class Calls(TorchDispatchMode):
    """Counts operators of torch by name."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).split(".")[1]
        self.counts[name] = self.counts.get(name, 0) + 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("checkpoint", [FULL, Checkpoint(save=("attention.core",)), Checkpoint(every=2)], ids=str)
def test_no_token_is_routed_again(checkpoint: Checkpoint) -> None:
    """Layers run again in backward, the choice of experts does not; rows are sorted by it again."""
    layout = Layout(checkpoint=checkpoint)
    file = load_file(emit(zoo.spec("experts-tiny"), layout).source, "file")
    module = file.build_model(torch.device("cpu"), 0)
    tokens = torch.arange(24).view(2, 12) % 96
    with Calls() as forward:
        value = file.loss(module(tokens), tokens, 1.0)
    with Calls() as backward:
        value.backward()
    assert forward.counts["topk"] == 8 and "topk" not in backward.counts
    assert backward.counts["sort"] == (2 if checkpoint.every == 2 else 4)


def test_it_reads_as_one_writes_it() -> None:
    layout = Layout(tp=2, sequence_parallel=True, checkpoint=FULL)
    text = emit(replace(zoo.spec("experts-tiny"), layouts=(layout,)), layout).source
    for line in (
        '        with kept("moe.route"):\n            gates, ids = scores.topk(2)  # [seq/tp, batch, topk]\n',
        "        gates = gates / gates.sum(-1, keepdim=True)\n",
        "        rows, owner, order = dispatch(all_gather(x, self.tp), ids)  # [slots, d_model]\n",
        "        rows = self.down(F.silu(self.gate(rows, owner)) * self.up(rows, owner), owner)\n",
        "        x = combine(rows, all_gather(gates, self.tp), order)  # [seq, batch, d_model] partial over tp\n",
        "        term = all_reduce(term + term2, self.tp)\n",
    ):
        assert line in text, line
