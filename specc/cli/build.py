"""specc build"""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import click

from specc.cli.specs import layout_of, load_all, specs_argument, stem
from specc.compile import Compiled, compile_spec
from specc.emit import emit
from specc.emit.write import Output, Unwritable, write
from specc.ir.text import text
from specc.source import plural
from specc.spec.core import Layout, Spec

FOLDER = Path("generated")


@dataclass(frozen=True)
class Owner:
    """What a file is written for. `layout`: as `--layout` asks for it, None for the first."""

    spec: str
    layout: str | None

    def __str__(self) -> str:
        return f"{self.spec}{f', layout {self.layout}' if self.layout else ''}"

    @property
    def options(self) -> tuple[str, ...]:
        return ("--layout", self.layout) if self.layout else ()


@click.command()
@specs_argument
@click.option("--layout", "name", help="Which of several layouts; the first by default.")
@click.option(
    "--check",
    "only_check",
    is_flag=True,
    help="Write nothing; exit 1 if a file that is there or should be is not what a build writes.",
)
@click.option("--diff", "only_diff", is_flag=True, help="Write nothing; show what a build would change.")
@click.option("-o", "folder", type=click.Path(path_type=Path), default=FOLDER, help="Where to write.")
@click.option(
    "--dump-passes", type=click.Path(path_type=Path), help="Write the graph after each pass into this folder."
)
def build(
    specs: tuple[Path, ...],
    name: str | None,
    only_check: bool,
    only_diff: bool,
    folder: Path,
    dump_passes: Path | None,
) -> int:
    """Write the PyTorch file of each spec, and the table of its parameters."""
    writes = not (only_check or only_diff)
    if dump_passes is not None and not writes:
        raise click.UsageError("--dump-passes writes files, which --check and --diff do not")
    loaded = load_all(specs)
    outputs: list[Output] = []
    owners: dict[Path, Owner] = {}
    chosen = [(spec, layout_of(spec, name)) for spec in loaded.specs]
    if only_check and name is None:
        chosen += [pair for spec in loaded.specs for pair in _committed(spec, folder)]
    for spec, layout in chosen:
        compiled = compile_spec(spec, layout)
        loaded.tell(compiled.findings)
        files = emit(spec, layout, compiled)
        place = folder / stem(spec, layout)
        made = [Output(Path(f"{place}.py"), files.source), Output(Path(f"{place}.params"), files.params)]
        which = name if layout is spec.layouts[0] else layout.name
        owners |= {output.path: Owner(spec.file, which) for output in made}
        outputs += made
        if dump_passes is not None:
            outputs += _dumps(compiled, dump_passes if len(loaded.specs) == 1 else dump_passes / place.name)
    if loaded.code:
        return loaded.finish("", ": nothing is written" if writes else "")
    try:
        if not writes:
            given = ("-o", str(folder)) if folder != FOLDER else ()
            return _compare(outputs, owners, only_diff, given)
        changed = {output.path for output in write(outputs)}
    except Unwritable as error:
        click.echo(f"error: {error}", err=True)
        return 2
    for output in outputs:
        click.echo(f"{'wrote' if output.path in changed else 'unchanged':<9} {output.path}", err=True)
    return 0


def _committed(spec: Spec, folder: Path) -> list[tuple[Spec, Layout]]:
    """The other layouts of which a file is there."""
    places = ((layout, folder / stem(spec, layout)) for layout in spec.layouts[1:])
    return [(spec, layout) for layout, place in places if any(map(os.path.lexists, (f"{place}.py", f"{place}.params")))]


def _dumps(compiled: Compiled, folder: Path) -> list[Output]:
    graphs = [*compiled.passes.items(), *([("decode", compiled.decode)] if compiled.decode else [])]
    return [Output(folder / f"{n:02}_{name}.txt", text(graph)) for n, (name, graph) in enumerate(graphs)]


def _compare(outputs: list[Output], owners: dict[Path, Owner], show: bool, given: tuple[str, ...]) -> int:
    """Tell what differs: from the disk to what a build with the `given` options writes, so + is what it would add."""
    stale: dict[Owner, None] = {}
    for output in outputs:
        old = output.on_disk()
        if old == output.data:
            continue
        stale[owners[output.path]] = None
        if show:
            click.echo(_diff(old, output), nl=False)
        else:
            state = "is missing" if old is None else f"is not what specc writes for {owners[output.path]}"
            click.echo(f"{output.path} {state}")
    if stale and not show:
        specs: dict[tuple[str, ...], list[str]] = {}
        for owner in stale:
            specs.setdefault(owner.options, []).append(owner.spec)
        commands = (shlex.join(("specc", "build", *files, *options, *given)) for options, files in specs.items())
        click.echo(f"To update, run {' and '.join(f'`{command}`' for command in commands)}.")
    elif not stale:
        click.echo(f"{plural(len(outputs), 'file')} up to date", err=True)
    return 1 if stale else 0


def _diff(old: bytes | None, output: Output) -> str:
    import difflib  # most builds show no difference

    names = (str(output.path) if old is not None else "/dev/null", str(output.path))
    before = (old or b"").decode("utf-8", "replace").splitlines(True)
    lines = difflib.unified_diff(before, output.text.splitlines(True), *names)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ no end of line\n" for line in lines)
