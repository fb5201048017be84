"""What `specc plan` says of the bytes of a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import click

from specc.cli.table import Lines, table
from specc.compile import compile_spec
from specc.cost.device import Device
from specc.cost.memory import GIB, OUTSIDE, Kind, Memory, fits, memories
from specc.cost.starts import Starts, lighter, names_of
from specc.spec import Spec
from specc.spec.core import Checkpoint, Layout

Fed = tuple[Mapping[str, int], Kind]
"""What one rank is fed, and whose kernels run."""
RESERVED = 1.1  # what torch's allocator holds at most for what is allocated
SHOWN = ("weights", "optimizer states", "gradients", "gathered weights", "activations")


def tell_memory(stages: list[Memory], layout: Layout, device: Device | None, unknown: tuple[str, ...]) -> None:
    """A line for each rank of the pipeline, a sentence for each place where a peak is, and whether it fits."""
    click.echo("")
    pp = layout.pp
    names = dict.fromkeys(name for found in stages for name in found.parts)
    columns = [name for name in SHOWN if name in names]
    held = [", ".join(map(str, pp.held(rank))) for rank in range(pp.ranks)]
    lines: Lines = [("stage" if pp.per_rank == 1 else "stages", *columns, "other", "peak GiB")]
    for name, found in zip(held, stages, strict=True):
        known = [found.parts.get(name, 0) for name in columns]
        lines.append((name, *map(_gib, (*known, found.peak - sum(known), found.peak))))
    lines = lines if len(stages) > 1 else [line[1:] for line in lines]
    table(lines, right=tuple(range(len(lines[0]))))
    for place in dict.fromkeys(found.where for found in stages):
        at = [name for name, found in zip(held, stages, strict=True) if found.where == place]
        word = "stage" if pp.per_rank == 1 else "the rank with stages"
        which = f" of {word} {(', ' if pp.per_rank == 1 else ' and ').join(at)}" if len(stages) > 1 else ""
        click.echo(f"peak{which}: {place}")
    if unknown:
        click.echo(f"of {', '.join(unknown)} only what they declare is counted")
    if pp.splits and layout.checkpoint != Checkpoint():
        click.echo(
            f"what runs again for {pp.schedule} is held until gradients of weights are there, which is not counted"
        )
    most = max(found.peak for found in stages) / GIB
    high = most * RESERVED + OUTSIDE
    click.echo(f"{most:.2f} GiB are allocated; with what torch reserves and other buffers up to {high:.0f} GiB")
    if device is not None:
        click.echo(verdict(most, device))


def tight(stages: list[Memory], device: Device) -> bool:
    """Whether what is lost between allocations may be too much."""
    return max(stage.peak for stage in stages) * RESERVED + OUTSIDE * GIB > device.memory


def tell_starts(spec: Spec, layout: Layout, starts: tuple[str, ...], fed: Fed, stages: list[Memory]) -> None:
    """Other starts of stages with which the fullest rank needs less, if there are any near."""
    names, given, kind = names_of(spec.model), *fed

    def laid(numbers: Starts) -> Layout:
        return replace(layout, pp=replace(layout.pp, starts=tuple(names[n] for n in numbers)))

    def peaks(numbers: Starts) -> list[int]:
        one = laid(numbers)
        return [found.peak for found in memories(compile_spec(spec, one).placed, one, given, kind)]

    numbers = tuple(map(names.index, starts))
    found = lighter(layout.pp, numbers, len(names), [stage.peak for stage in stages], peaks)
    if found is not None:
        told = ", ".join(laid(found[0]).pp.starts)
        click.echo(f"with starts: [{told}] the fullest rank needs {found[1] / GIB:.2f} GiB")


def verdict(most: float, device: Device) -> str:
    """`fits 79.2 GiB of h100`; `most`: GiB that are allocated."""
    has = device.memory / GIB
    if not fits(most * GIB, device):
        return f"does not fit {has:.1f} GiB of {device.name}"
    tight = " if nothing is lost between allocations" if most * RESERVED + OUTSIDE > has else ""
    return f"fits {has:.1f} GiB of {device.name}{tight}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
