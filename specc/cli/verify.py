"""specc verify"""

from __future__ import annotations

import gc
import os
from pathlib import Path

import click

from specc.cli.specs import layout_of, load_all
from specc.compile import compile_spec


@click.command()
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("--layout", "name", help="Which of several layouts; all by default.")
@click.option("--ranks", type=click.IntRange(2, 64), default=16, show_default=True, help="Processes at most.")
def verify(spec: Path, name: str | None, ranks: int) -> int:
    """Prove that interpreter, generated file and layout compute the same, in small sizes on this machine."""
    loaded = load_all((spec,))
    if loaded.code:
        return loaded.finish("")
    try:
        from specc.verify import RankDied, least_ranks, verify_layout
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "numpy"):
            raise
        raise click.ClickException(f"verify needs torch: pip install 'specc[torch]' ({error})") from error
    if not hasattr(os, "fork"):
        raise click.ClickException("verify forks a process for each rank, which this operating system cannot")
    only = loaded.specs[0]
    layouts = only.layouts if name is None else (layout_of(only, name),)
    for layout in layouts:
        loaded.tell(compile_spec(only, layout).findings)
    if loaded.code:
        return loaded.finish("")
    for layout in layouts:
        if (least := least_ranks(layout)) > ranks:
            which = f"layout {layout.name}" if layout.name else "the layout"
            raise click.BadParameter(f"{which} needs at least {least}, not {ranks}", param_hint="--ranks")
    gc.enable()  # graphs of gradients are cycles
    try:
        codes = [verify_layout(only, layout, ranks) for layout in layouts]
    except RankDied as error:
        raise click.ClickException(f"{error}\nFor less memory, give fewer --ranks.") from error
    return max(codes)
