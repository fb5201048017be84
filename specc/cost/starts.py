"""Where stages start such that none of their ranks needs much more memory than another."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from specc.spec.core import Model
from specc.spec.schedules import Pipeline

Starts = tuple[int, ...]
"""The first layer of each stage but the first, by its number among all."""
Peaks = Callable[[Starts], Sequence[int]]
"""Bytes of each rank of the pipeline."""
MOST = 24  # ways that are tried
LESS = 0.97  # of the peak, from which on other starts are worth telling


def lighter(pp: Pipeline, starts: Starts, layers: int, held: Sequence[int], peaks: Peaks) -> tuple[Starts, int] | None:
    """Starts with a lower peak, and that peak; None where there are none near. `held`: the bytes of `starts`.

    Layer by layer, from a stage of the fullest rank to the one beside it.
    """
    best, now, tried = starts, list(held), 0
    while tried < MOST:
        fullest = max(range(len(now)), key=now.__getitem__)
        found: tuple[Starts, list[int]] | None = None
        for moved in _moved(pp, best, layers, fullest):
            tried += 1
            bytes = list(peaks(moved))
            if max(bytes) < max(found[1] if found else now):
                found = moved, bytes
        if found is None:
            break
        best, now = found
    return (best, max(now)) if max(now) < LESS * max(held) else None


def _moved(pp: Pipeline, starts: Starts, layers: int, rank: int) -> list[Starts]:
    """Each with one layer less in a stage of that rank."""
    found: list[Starts] = []
    ends = (0, *starts, layers)
    for stage in pp.held(rank):
        if ends[stage + 1] - ends[stage] > 1:
            if stage:
                found.append((*starts[: stage - 1], starts[stage - 1] + 1, *starts[stage:]))
            if stage < pp.stages - 1:
                found.append((*starts[:stage], starts[stage] - 1, *starts[stage + 1 :]))
    return found


def names_of(model: Model) -> tuple[str, ...]:
    """Of all layers in order, as starts have them."""
    return tuple(f"{stack.path}.{n}" for stack in model.stacks for n in range(stack.layers))
