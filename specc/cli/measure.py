"""specc measure"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from specc.cost.device import device_text, with_measured
from specc.source import render


@click.command()
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="The file; stdout by default.")
@click.option("--device", "name", metavar="NAME or FILE", help="Whose sheet it is; what torch finds by default.")
@click.option("--precision", type=click.Choice(["bf16", "fp32"]), help="By default bf16, fp32 on a CPU.")
@click.option("--quick", is_flag=True, help="Small sizes alone: seconds, for a first look.")
def measure(output: Path | None, name: str | None, precision: Literal["bf16", "fp32"] | None, quick: bool) -> int:
    """Measure this machine's device, and write its file for `specc plan --device`.

    Under torchrun, collectives of all ranks, too; the first one writes.
    """
    from specc.measure.machine import here, joined, measured, sheet, usual

    place = here()
    name = name or sheet(place)
    if name is None:
        raise click.UsageError("specc has no sheet of this device: describe it in a file and say --device FILE")
    text = device_text(name)
    if not isinstance(text, str):
        for item in text:
            click.echo(render(item))
        return 1
    with joined(place) as rank:
        found = measured(place, precision or usual(place), quick)
    if rank:
        return 0
    made = with_measured(text, found)
    if output is None:
        click.echo(made, nl=False)
        return 0
    output.write_text(made, encoding="utf-8")
    click.echo(f"{output}: as torch {found.torch} was measured in {found.precision}", err=True)
    return 0
