"""What commands share that speak to other libraries: which mapping, and writing one text."""

from __future__ import annotations

from pathlib import Path

import click

from specc.cli.specs import Loaded
from specc.emit.write import Output, Unwritable, write

map_option = click.option("--map", "own", type=click.Path(path_type=Path), help="A mapping of yours, from a file.")
family_option = click.option("--family", help="Whose model it is, by model_type.")


def put(path: Path | None, text: str) -> int:
    """Write a text, to stdout without a path; the exit code."""
    if path is None:
        click.echo(text, nl=False)
        return 0
    try:
        changed = write([Output(path, text)])
    except Unwritable as error:
        click.echo(f"error: {error}", err=True)
        return 2
    click.echo(f"{'wrote' if changed else 'unchanged':<9} {path}", err=True)
    return 0


def fail(loaded: Loaded) -> int:
    """Say that nothing is written; the exit code."""
    return loaded.finish("", ": nothing is written")
