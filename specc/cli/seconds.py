"""What `specc plan` says of the time of a step."""

from __future__ import annotations

from math import floor, log10

import click

from specc.cli.table import table
from specc.cost.device import Device
from specc.cost.seconds import Seconds


def tell_seconds(found: Seconds, device: Device, batch: int) -> None:
    """Parts of the slowest stage with where each comes from, and then what a step takes: no digit that is not known."""
    click.echo("")
    table(
        [
            ("of a step", "seconds", "from"),
            *((part.name, rounded(part.seconds), part.source) for part in found.parts),
        ],
        right=(1,),
    )
    click.echo(f"\n{batch:,} sequences, {found.tokens:,} tokens on {found.ranks} x {device.name}:")
    most, least = (found.tokens / seconds for seconds in (found.low, found.high))
    lines = [
        ("seconds a step", between(found.low, found.high)),
        ("tokens a second", between(least, most)),
        ("MFU, 6 N D", _shares(found, found.mfu_6n)),
        ("MFU, all products", _shares(found, found.mfu)),
        ("HFU, with what runs again", _shares(found, found.hfu)),
    ]
    table(lines)
    if found.unmeasured:
        words = ", ".join(found.unmeasured)
        click.echo(f"not measured: {words}; `specc measure` does that. Layouts rank more surely than these numbers.")


def _shares(found: Seconds, share: float) -> str:
    """Of the peak of all ranks."""
    ends = (100 * share * found.step / seconds for seconds in (found.high, found.low))
    return f"{between(*ends)} %"


def between(low: float, high: float) -> str:
    """`0.93 .. 1.5`"""
    return f"{rounded(low)} .. {rounded(high)}"


def rounded(number: float) -> str:
    """With two digits that count: `1,300`, `0.0041`."""
    if number <= 0:
        return "0"
    digits = 1 - floor(log10(number))
    value = round(number, digits)
    return f"{value:,.{max(0, 1 - floor(log10(value)))}f}"
