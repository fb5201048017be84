"""The tiny specs as Spec objects, and layouts for them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

from specc.components.attention import Attention
from specc.components.cross_attention import CrossAttention
from specc.source import read
from specc.spec import Spec, load
from specc.spec.core import Checkpoint, Layout, Model, Pipeline, Stack

ROOT = Path(__file__).parents[1]
TINY = ("transformer-tiny", "gpt2-tiny", "llama-tied-tiny", "llama-tiny", "hybrid-tiny", "packed-tiny")
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


def covering(limit: int = 8) -> list[Layout]:
    """A few layouts in which each pair of choices of two factors occurs, as far as `limit` ranks allow."""
    factors = (TENSOR, PIPELINE, tuple(CHECKPOINTS))
    cells = [c for c in product(*factors) if c[0][0] * c[1][0] <= limit]
    pairs = {((i, c[i]), (j, c[j])) for c in cells for i in range(3) for j in range(i)}
    chosen: list[Layout] = []
    while pairs:
        best = max(cells, key=lambda c: sum(((i, c[i]), (j, c[j])) in pairs for i in range(3) for j in range(i)))
        pairs -= {((i, best[i]), (j, best[j])) for i in range(3) for j in range(i)}
        (tp, sp), (stages, schedule), checkpoint = best
        chosen.append(layout(tp, sp, stages, schedule, checkpoint))
    return chosen


DATA = [
    layout(1, False, 1, "1f1b", "full", dp=2),
    layout(2, True, 1, "1f1b", "save", dp=2),
    layout(2, False, 2, "gpipe", "every 2", dp=2),
    layout(2, True, 2, "1f1b", "save", dp=2),
    layout(1, False, 4, "1f1b", "none", dp=2),
    replace(layout(2, True, 2, "1f1b", "save", dp=2), precision="bf16"),
]
"""With two data ranks under FSDP2."""
