"""What `specc plan` says of the bytes of a step."""

from __future__ import annotations

import click

from specc.cli.table import Lines, table
from specc.cost.device import Device
from specc.cost.memory import GIB, OUTSIDE, Memory, fits

RESERVED = 1.1  # what torch's allocator holds at most for what is allocated
SHOWN = ("weights", "optimizer states", "gradients", "gathered weights", "activations")


def tell_memory(stages: list[Memory], device: Device | None, unknown: tuple[str, ...]) -> None:
    """A line a stage, a sentence for each place where a peak is, and whether it fits."""
    click.echo("")
    names = dict.fromkeys(name for found in stages for name in found.parts)
    columns = [name for name in SHOWN if name in names]
    lines: Lines = [("stage", *columns, "other", "peak GiB")]
    for number, found in enumerate(stages):
        known = [found.parts.get(name, 0) for name in columns]
        lines.append((str(number), *map(_gib, (*known, found.peak - sum(known), found.peak))))
    lines = lines if len(stages) > 1 else [line[1:] for line in lines]
    table(lines, right=tuple(range(len(lines[0]))))
    for place in dict.fromkeys(found.where for found in stages):
        at = [str(number) for number, found in enumerate(stages) if found.where == place]
        which = f" of stage {', '.join(at)}" if len(stages) > 1 else ""
        click.echo(f"peak{which}: {place}")
    if unknown:
        click.echo(f"of {', '.join(unknown)} only what they declare is counted")
    most = max(found.peak for found in stages) / GIB
    high = most * RESERVED + OUTSIDE
    click.echo(f"{most:.2f} GiB are allocated; with what torch reserves and other buffers up to {high:.0f} GiB")
    if device is not None:
        click.echo(verdict(most, device))


def verdict(most: float, device: Device) -> str:
    """`fits 79.2 GiB of h100`; `most`: GiB that are allocated."""
    has = device.memory / GIB
    if not fits(most * GIB, device):
        return f"does not fit {has:.1f} GiB of {device.name}"
    tight = " if nothing is lost between allocations" if most * RESERVED + OUTSIDE > has else ""
    return f"fits {has:.1f} GiB of {device.name}{tight}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
