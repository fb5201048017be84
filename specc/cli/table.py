"""A table on the terminal."""

from __future__ import annotations

import click

Lines = list[tuple[str, ...]]


def table(lines: Lines, right: tuple[int, ...] = (), widest: int = 1000) -> None:
    """Columns of equal width, numbers to the right. A cell wider than `widest` moves what follows it in its line."""
    columns = range(len(lines[0]))
    widths = [max((len(line[n]) for line in lines if len(line[n]) <= widest), default=0) for n in columns]
    for line in lines:
        cells = [line[n].rjust(widths[n]) if n in right else line[n].ljust(widths[n]) for n in columns]
        click.echo("  ".join(cells).rstrip())
