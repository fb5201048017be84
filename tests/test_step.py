"""A step in every layout is that of one device: with frozen weights, without labels, short, broken, evaluated."""

from __future__ import annotations

import math
from functools import cache

import pytest
import torch
from torch import Tensor

from specc.emit import emit
from specc.spec.core import Layout, Model, Pipeline, Spec
from specc.verify.launch import RankError, run_ranks
from specc.verify.relations import setting
from specc.verify.run import in_double, world_size
from tests.models import gpt2, llama, transformer
from tests.stepping import PAD, ROWS, SCENARIOS, SEQ, Told, on_rank

TIED, APART, BIASED = llama(layers=2, tied=True, vocab=97), llama(layers=2), gpt2(layers=2)
PAIR = transformer(layers=1)
PP = Pipeline(2, "1f1b")
LAYOUTS = {
    "one in parts": (TIED, Layout(microbatches=4)),
    "tp": (BIASED, Layout(tp=2)),
    "tp sp in parts": (TIED, Layout(tp=2, sequence_parallel=True, microbatches=2)),
    "dp in parts": (BIASED, Layout(dp=2, microbatches=2)),
    "tp dp": (TIED, Layout(tp=2, dp=2)),
    "dp cp": (TIED, Layout(dp=2, cp=2)),
    "pp": (APART, Layout(pp=PP, microbatches=4)),
    "pp tied": (TIED, Layout(pp=Pipeline(2, "gpipe"), microbatches=2)),
    "pp tp": (TIED, Layout(tp=2, pp=PP, microbatches=2)),
    "dp pair": (PAIR, Layout(dp=2, microbatches=2)),
    "pp dp pair": (PAIR, Layout(dp=2, pp=PP, microbatches=2)),
    "pp dp tied": (TIED, Layout(dp=2, pp=PP, microbatches=2)),
}
NAMES = tuple(SCENARIOS)
BOUND = 1e-10


def source_of(model: Model, layout: Layout) -> str:
    return emit(Spec(model, (layout,)), layout).source


@cache
def given(model: Model) -> tuple[dict[str, Tensor], tuple[Tensor, ...]]:
    """Weights with noise on all of them, and a batch: some labels are missing, in one row all, and unequally many."""
    weights = setting(model, Layout()).weights
    generator = torch.Generator().manual_seed(3)
    tokens, labels = (torch.randint(model.vocab, (ROWS, SEQ), generator=generator) for _ in range(2))
    hidden = torch.rand(labels.shape, generator=generator) < torch.linspace(0.1, 0.8, ROWS)[:, None]
    labels = labels.masked_fill(hidden, -100).index_fill(0, torch.tensor([2]), -100)
    if model.pad is None:
        return weights, (tokens, labels)
    assert model.pad == PAD
    source = torch.randint(1, model.vocab, (ROWS, SEQ + 2), generator=generator)
    source[1, 4:] = PAD
    return weights, (source, tokens, labels)


@cache
@in_double()
def alone(model: Model, name: str) -> Told:
    return on_rank(source_of(model, Layout()), *given(model), (name,))[0]


def told(model: Model, layout: Layout, names: tuple[str, ...], source: str = "") -> list[list[Told]]:
    arguments = (source or source_of(model, layout), *given(model), names)
    if world_size(layout) == 1:
        with in_double():
            return [on_rank(*arguments)]
    return run_ranks(world_size(layout), on_rank, *arguments, timeout=120.0)


@cache
def ranks(layout: str) -> list[list[Told]]:
    return told(*LAYOUTS[layout], NAMES)


def largest(found: Told, wanted: Told) -> float:
    """NaN counts as infinite, and so does what only one has."""
    if not found.keys() <= wanted.keys():
        return math.inf
    pairs = [(torch.as_tensor(x), torch.as_tensor(wanted[name])) for name, x in found.items()]
    if any(a.shape != b.shape for a, b in pairs):
        return math.inf
    return max((a.double() - b.double()).abs().max().nan_to_num(nan=math.inf).item() for a, b in pairs)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_is_that_of_one_device(layout: str) -> None:
    wrong = [
        (name, n, largest(rank[NAMES.index(name)], alone(LAYOUTS[layout][0], name)))
        for name in NAMES
        for n, rank in enumerate(ranks(layout))
    ]
    assert not [row for row in wrong if not row[2] <= BOUND * (4096 if row[0] == "scaled" else 1)]


@pytest.mark.parametrize("model", [TIED, APART, BIASED], ids=["tied", "apart", "biased"])
def test_one_device_is_as_it_should_be(model: Model) -> None:
    """What the others are compared with: nothing moves without a label or with a gradient that is no number."""
    weights, _ = given(model)
    for name in ("no labels", "not finite"):
        found = alone(model, name)
        assert all(torch.equal(found[f"weight {key}"], value) for key, value in weights.items())
    assert alone(model, "no labels")["loss"] == alone(model, "no labels")["norm"] == 0
    broken = alone(model, "not finite")
    assert broken["finite inf"] == broken["finite nan"] == 0 < broken["norm"]
    frozen = alone(model, "embedding frozen")
    still = {key for key, value in weights.items() if torch.equal(frozen[f"weight {key}"], value)}
    assert "embedding.weight" in still and not any(key.startswith("layers") for key in still)
    once, scaled = alone(model, "two parts"), alone(model, "scaled")
    assert largest({key: 4096 * value for key, value in once.items()}, scaled) <= 4096 * BOUND
    before, between = alone(model, "evaluation")["before"], alone(model, "evaluation")["between"]
    assert before[1] == between[1] == given(model)[1][-1].ne(-100).sum() and before[0] != between[0]
    assert torch.equal(before, alone(model, "evaluation")["again"])


MUTANTS = [
    ("pp tied", "p.grad.add_(grad)", "p.grad", "two parts"),
    ("pp dp tied", "p.grad.add_(grad)", "p.grad", "two parts"),
    ("pp dp tied", "torch.no_grad(), apart(self.module.parameters())", "torch.no_grad()", "evaluation"),
    ("pp", "if p.grad is not None]", "]", "layers frozen"),
    ("pp", " & (norm > 0)", "", "no labels"),
    ("pp", "norm.isfinite() & ", "", "not finite"),
    ("pp", "count.where(count > 0, 1)", "count", "no labels"),
    ("tp", "    self.optimizer.found_inf = ", "    self.found = ", "no labels"),
    ("tp", ".where(real, 0).sum()", ".sum()", "two steps"),
    ("tp", "[: shape[0], : shape[1]]", "", "evaluation"),
    ("tp dp", ", resharding(self.module)", "", "evaluation"),
    ("dp in parts", "value = value / ranks", "value = value * 1", "two steps"),
    ("dp in parts", "self.count(labels) if count is None else count", "self.count(labels)", "two parts"),
    ("one in parts", "value += part.detach()", "value = part.detach()", "two steps"),
]


@pytest.mark.parametrize(("layout", "old", "new", "name"), MUTANTS)
def test_a_broken_step_is_seen(layout: str, old: str, new: str, name: str) -> None:
    model, plan = LAYOUTS[layout]
    source = source_of(model, plan)
    assert old in source
    try:
        (*found,) = told(model, plan, (name,), source.replace(old, new))
    except (RankError, AttributeError, TypeError):
        return
    assert any(not largest(rank[0], alone(model, name)) <= BOUND for rank in found)
