"""Fewer layers and fewer pipeline stages, such that stages stay what they are.

What a stage is depends on which blocks it runs, where in the pattern it starts, and what stands before and after it,
but not on how many layers it runs. So layers leave it by whole periods: it keeps all up to a period, and else more than
one period and at most two. With the cuts named, the same stages are then distinct, and the same ones held once.
"""

from __future__ import annotations

from collections import Counter

from specc.lower import lower
from specc.passes import typed
from specc.passes.stages import planned
from specc.spec.core import Layout, Model, Run

Stage = tuple[int, ...]
"""How many layers a stage runs of each run of the model."""
Groups = tuple[tuple[Stage, ...], ...]
"""Stages in order; those held once are one group."""


def stages_of(model: Model, layout: Layout) -> Groups:
    """The real stages; one if the layout has no pipeline."""
    graph = typed(lower(model), layout)
    runs = [repeat.op.id for repeat in graph.repeats]
    groups: list[tuple[Stage, ...]] = []
    for parts in planned(graph, layout).values():
        counts = [{part.of.op.id: len(part.layers) for part in parts}]
        if spans := parts[0].spans:
            counts = [{parts[0].of.op.id: span.n} for span in spans]
        groups.append(tuple(tuple(count.get(run, 0) for run in runs) for count in counts))
    return tuple(groups)


def fewer_equal(groups: Groups) -> Groups | None:
    """The last two of the largest group as one stage; None where no group has more than two."""
    most = max(groups, key=len)
    at = groups.index(most)
    return (*groups[:at], (*most[:-2], _both(*most[-2:])), *groups[at + 1 :]) if len(most) > 2 else None


def fewer_stages(groups: Groups) -> Groups:
    """The two neighbours with the fewest layers as one stage; no groups are left."""
    stages = [stage for group in groups for stage in group]
    at = min(range(len(stages) - 1), key=lambda n: sum(stages[n] + stages[n + 1]))
    stages[at : at + 2] = [_both(stages[at], stages[at + 1])]
    return tuple((stage,) for stage in stages)


def _both(a: Stage, b: Stage) -> Stage:
    return tuple(n + m for n, m in zip(a, b, strict=True))


def fewer_layers(model: Model, groups: Groups) -> list[Stage]:
    """All stages in order, with whole periods left out."""
    runs = [run for stack in model.stacks for run in stack.runs]
    return [tuple(_fewer(n, run) for n, run in zip(stage, runs, strict=True)) for group in groups for stage in group]


def _fewer(layers: int, run: Run) -> int:
    period = len(run.blocks)
    return layers if layers <= period else period + 1 + (layers - 1) % period


def starts_of(model: Model, stages: list[Stage]) -> tuple[str, ...]:
    """The first layer of each stage but the first, by name."""
    paths = [stack.path for stack in model.stacks for _ in stack.runs]
    layers: Counter[str] = Counter()
    starts: list[str] = []
    for stage in stages:
        path = next(path for path, n in zip(paths, stage, strict=True) if n)
        starts.append(f"{path}.{layers[path]}")
        for path, n in zip(paths, stage, strict=True):
            layers[path] += n
    return tuple(starts[1:])
