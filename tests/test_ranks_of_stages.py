"""Several stages a rank: every schedule of torch against one device, what a rank holds twice, what cannot be kept."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from specc.compile import compile_spec
from specc.emit import emit
from specc.spec import Spec
from specc.spec.core import Checkpoint, Layout, Pipeline
from specc.spec.schedules import SCHEDULES, ScheduleName
from specc.verify.relations import describe, layout_relations, setting
from specc.verify.shrink import least_ranks, shrink
from tests import zoo

LISTS = tuple(name for name, kind in SCHEDULES.items() if not kind.single)
NAMES = ("llama-tied-tiny", "biased-tiny", "hybrid-tiny", "routed-tiny", "shared-tiny")


def layout(name: ScheduleName, stages: int = 4, per_rank: int = 2, microbatches: int = 4, **more: Any) -> Layout:
    return Layout(pp=Pipeline(stages, name, per_rank=per_rank), microbatches=microbatches, **more)


DEFAULT = (
    ("transformer-tiny", layout("interleaved_1f1b")),  # embedding on both ranks, and twice on the first
    ("llama-tied-tiny", layout("zbv", dp=2, checkpoint=Checkpoint(every=2))),  # twice on the first alone
    ("routed-tiny", layout("dualpipev", microbatches=5)),
    ("llama-tiny", layout("interleaved_zero_bubble", tp=2, sequence_parallel=True)),
)
WIDER = [
    *product(NAMES, (layout(name, microbatches=6, **more) for name in LISTS for more in ({"tp": 2}, {"dp": 2}))),
    *product(("transformer-tiny",), (layout(name, 4) for name in LISTS if not SCHEDULES[name].split)),
    *product(NAMES[:2], (layout(name, 4, 1) for name in LISTS if SCHEDULES[name].per_rank is None)),
    *product(NAMES[:1], (layout(name, checkpoint=Checkpoint(save=("attention.o",))) for name in LISTS)),
]


def agree(name: str, laid: Layout) -> None:
    model, small = shrink(zoo.model(name), laid, 4)
    assert not [row for row in layout_relations(setting(model, small), small) if not row.holds]


@pytest.mark.parametrize(("name", "laid"), DEFAULT, ids=zoo.called)
def test_schedules_agree(name: str, laid: Layout) -> None:
    agree(name, laid)


@pytest.mark.matrix
@pytest.mark.parametrize(("name", "laid"), WIDER, ids=zoo.called)
def test_every_schedule_agrees(name: str, laid: Layout) -> None:
    agree(name, laid)


@pytest.mark.parametrize("name", LISTS)
def test_what_is_verified_has_as_many_stages_a_rank(name: ScheduleName) -> None:
    laid = layout(name, 16, 2, 16)
    model = zoo.model("llama-tiny")
    model = replace(model, stacks=(replace(model.stacks[0], runs=(replace(model.stacks[0].runs[0], layers=32),)),))
    for ranks in (1, 2, 4):
        small = shrink(model, laid, ranks)[1]
        assert (small.pp.per_rank, small.pp.ranks) == (2, max(ranks, least_ranks(laid))), describe(small)
        assert emit(Spec(model, (small,)), small)


def source(name: str, laid: Layout) -> str:
    return emit(Spec(zoo.model(name), (laid,)), laid).source


def test_a_rank_holds_a_weight_twice_only_where_it_must() -> None:
    looped, turned = (source("llama-tied-tiny", layout(name)) for name in ("interleaved_1f1b", "zbv"))
    assert 'TIED = {"embedding.weight": (0, 1)}  # weights that several ranks of pp hold' in looped
    assert "mirrored(" not in looped and "TIED" not in turned
    assert "with torch.no_grad(), mirrored(self.module.copies):" in turned
    assert "TurningStage" not in looped and "for n in (self.index, len(STAGES) - 1 - self.index)" in turned
    both = source("transformer-tiny", layout("interleaved_1f1b"))
    assert "mirrored(" in both and "TIED" in both


def test_ranks_are_those_of_the_pipeline() -> None:
    text = source("llama-tiny", layout("looped_bfs", tp=2))
    assert "--nproc-per-node 4" in text and "4 pipeline stages, 2 a rank, looped_bfs, 4 microbatches" in text
    assert 'raise ValueError(f"this file needs pp 2 x tp 2 = 4 ranks; there are {world}")' in text


@pytest.mark.parametrize(
    ("name", "checkpoint", "codes"),
    [
        ("zbv", Checkpoint(save=("attention.core",)), ["E434", "W503"]),
        ("dualpipev", Checkpoint(save=("attention.o", "ffn.gate")), ["E434", "W503"]),
        ("interleaved_zero_bubble", Checkpoint(save=("attention.o",)), ["W503"]),
        ("interleaved_zero_bubble", Checkpoint(every=2), ["W503"]),
        ("interleaved_1f1b", Checkpoint(save=("attention.core",)), []),
        ("zbv", Checkpoint(), []),
    ],
)
def test_what_a_split_backward_can_keep(name: ScheduleName, checkpoint: Checkpoint, codes: list[str]) -> None:
    laid = layout(name, checkpoint=checkpoint)
    found = compile_spec(Spec(zoo.model("llama-tiny", laid), (laid,)), laid).findings
    assert [item.code for item in found] == codes
    if checkpoint.every:
        assert "up to 10 times instead of once" in found[0].message  # 7 matrices and 2 norms


@pytest.mark.parametrize(
    ("name", "starts", "stage"),
    [
        ("transformer-tiny", ("encoder.1", "decoder.0", "decoder.1"), 2),
        ("transformer-tiny", ("decoder.1",), None),
        ("steps-tiny", (), 3),  # what comes next is embedded in the last stage
        ("shared-tiny", (), None),
    ],
)
def test_weights_that_follow_from_no_input(name: str, starts: tuple[str, ...], stage: int | None) -> None:
    """Of these torch says that it goes through the graph a second time; in stage 0 it goes back as a whole."""
    number = len(starts) + 1 if starts else 4
    for schedule in ("interleaved_zero_bubble", "interleaved_1f1b"):
        laid = Layout(pp=Pipeline(number, schedule, starts, number // 2), microbatches=4)
        found = compile_spec(Spec(zoo.model(name), (laid,)), laid).findings
        wanted = [f"torch cannot in stage {stage}"] if stage and laid.pp.splits else []
        found = [item for item in found if item.severity == "error"]
        assert [item.code for item in found] == ["E435" for _ in wanted]
        assert all(words in item.message for words, item in zip(wanted, found, strict=True))
