"""The tiny specs as Spec objects, and layouts for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import pytest

from specc.components.attention import Attention
from specc.components.cross_attention import CrossAttention
from specc.source import read
from specc.spec import Spec, load
from specc.spec.core import Checkpoint, Layout, Model, Pipeline, Stack
from specc.verify.relations import describe

T = TypeVar("T")
ROOT = Path(__file__).parents[1]
TINY = (
    "transformer-tiny",
    "gpt2-tiny",
    "llama-tied-tiny",
    "llama-tiny",
    "hybrid-tiny",
    "packed-tiny",
    "latent-tiny",
    "biased-tiny",
    "ends-tiny",
    "classes-tiny",
    "vision-tiny",
    "speech-tiny",
)
SAVES = Checkpoint(save=("attention.core", "attention.o"))
CHECKPOINTS = {"none": Checkpoint(), "full": Checkpoint(every=1), "every 2": Checkpoint(every=2), "save": SAVES}


@cache
def spec(name: str) -> Spec:
    """The spec of that name in specs/ or specs/tiny/."""
    folder = ROOT / "specs"
    path = folder / "tiny" / f"{name}.yaml" if name.endswith("-tiny") else folder / f"{name}.yaml"
    source = read(path)
    assert not isinstance(source, list), source
    found = load(source)
    assert isinstance(found, Spec), found
    return found


@cache
def model(name: str, layout: Layout = Layout()) -> Model:  # noqa: B008 (frozen)
    """The model; without dropout on attention weights where the layout keeps them, which is refused (E413)."""
    found = spec(name).model
    return still(found) if "attention.core" in layout.checkpoint.save else found


def still(found: Model) -> Model:
    """The model without dropout on attention weights."""

    def quiet(stack: Stack) -> Stack:
        runs = []
        for run in stack.runs:
            blocks = []
            for block in run.blocks:
                sublayers = []
                for sublayer in block.sublayers:
                    branches = tuple(
                        replace(b, component=b.component.model_copy(update={"dropout": 0.0}))
                        if isinstance(b.component, (Attention, CrossAttention))
                        else b
                        for b in sublayer.branches
                    )
                    sublayers.append(replace(sublayer, branches=branches))
                blocks.append(replace(block, sublayers=tuple(sublayers)))
            runs.append(replace(run, blocks=tuple(blocks)))
        return replace(stack, runs=tuple(runs))

    return replace(found, stacks=tuple(quiet(stack) for stack in found.stacks))


TENSOR = ((1, False), (2, False), (2, True), (4, False), (4, True))
PIPELINE = ((1, "1f1b"), (2, "gpipe"), (2, "1f1b"), (4, "gpipe"), (4, "1f1b"))


def matrix() -> list[Layout]:
    """tp x sequence parallel x stages x schedule x checkpointing."""
    return [
        layout(tp, sp, stages, schedule, checkpoint)
        for (tp, sp), (stages, schedule), checkpoint in product(TENSOR, PIPELINE, CHECKPOINTS)
    ]


def layout(tp: int, sp: bool, stages: int, schedule: str, checkpoint: str, dp: int = 1) -> Layout:
    pipeline, saved = Pipeline(stages, "gpipe" if schedule == "gpipe" else "1f1b"), CHECKPOINTS[checkpoint]
    return Layout(tp=tp, sequence_parallel=sp, dp=dp, pp=pipeline, microbatches=stages, checkpoint=saved)


APART = ((2, False), (4, False), (2, "gpipe"), (4, "gpipe"))
"""What meets every other choice, but not every spec: of ways to split and of pipelines the simpler ones."""


def covering(limit: int = 4) -> list[tuple[str, Layout]]:
    """Tiny specs with layouts in which each pair of choices of two factors occurs, as far as `limit` ranks allow.

    The spec is a factor: each meets every checkpointing, and ways to split and pipelines but those of `APART`.
    """
    factors = (TINY, TENSOR, PIPELINE, tuple(CHECKPOINTS))
    cells = [c for c in product(*factors) if c[1][0] * c[2][0] <= limit]
    of = {
        cell: {((i, cell[i]), (j, cell[j])) for i in range(4) for j in range(i) if j or cell[i] not in APART}
        for cell in cells
    }
    pairs = {pair for found in of.values() for pair in found}
    chosen: list[tuple[str, Layout]] = []
    while pairs:
        # of those with as many pairs the one of fewest ranks
        best = max(cells, key=lambda c: (len(of[c] & pairs), -c[1][0] * c[2][0]))
        pairs -= of[best]
        name, (tp, sp), (stages, schedule), checkpoint = best
        chosen.append((name, layout(tp, sp, stages, schedule, checkpoint)))
    return chosen


def called(value: str | Layout) -> str:
    """The id of a parameter of a test."""
    return value if isinstance(value, str) else describe(value)


def spread(names: Iterable[str], others: Iterable[T], each: int) -> list[Any]:
    """All pairs, of which one of `each` is in the default run, spread over both; the rest is of the matrix."""
    return [
        pytest.param(name, other, marks=[pytest.mark.matrix] * bool((n + m) % each))
        for n, name in enumerate(names)
        for m, other in enumerate(others)
    ]


DATA = [
    layout(1, False, 1, "1f1b", "full", dp=2),
    layout(2, True, 1, "1f1b", "save", dp=2),
    layout(2, False, 2, "gpipe", "every 2", dp=2),
    layout(2, True, 2, "1f1b", "save", dp=2),
    layout(1, False, 4, "1f1b", "none", dp=2),
    replace(layout(2, True, 2, "1f1b", "save", dp=2), precision="bf16"),
]
"""With two data ranks under FSDP2."""
