"""specc build"""

from __future__ import annotations

import difflib
from pathlib import Path

import click

from specc.cli.specs import layout_of, load_all, plural, specs_argument
from specc.emit import Files, emit
from specc.emit.write import Output, Unwritable, write
from specc.ir.text import text
from specc.lower import lower
from specc.passes import compile_graph, run
from specc.passes.saves import save_findings
from specc.source import render
from specc.spec import Layout, Spec


@click.command()
@specs_argument
@click.option("--layout", "name", help="Which of several layouts; the first by default.")
@click.option("--check", "only_check", is_flag=True, help="Write nothing; exit 1 if a file is not what a build writes.")
@click.option("--diff", "only_diff", is_flag=True, help="Write nothing; show what a build would change.")
@click.option("-o", "folder", type=click.Path(path_type=Path), default=Path("generated"), help="Where to write.")
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
    loaded = load_all(specs)
    outputs: list[Output] = []
    owners: dict[str, str] = {}
    findings = loaded.findings
    for spec in loaded.specs:
        layout = layout_of(spec, name)
        findings += _save_findings(spec, layout)
        files = _emit(spec, layout)
        stem = files.name if layout is spec.layouts[0] else f"{files.name}_{layout.name}"
        if stem in owners:
            raise click.UsageError(f"{owners[stem]} and {spec.file} would both be written to {folder / stem}.py")
        owners[stem] = spec.file
        outputs += [Output(folder / f"{stem}.py", files.source), Output(folder / f"{stem}.params", files.params)]
        if dump_passes is not None:
            outputs += _dumps(spec, layout, dump_passes if len(loaded.specs) == 1 else dump_passes / stem)
    if findings or loaded.unreadable:
        click.echo(f"{plural(findings, 'error')}: nothing is written", err=True)
        return loaded.code or 1
    try:
        if only_check or only_diff:
            return _compare(outputs, owners, only_diff)
        changed = {output.path for output in write(outputs)}
    except Unwritable as error:
        click.echo(f"error: {error}", err=True)
        return 2
    for output in outputs:
        click.echo(f"{'wrote' if output.path in changed else 'unchanged':<9} {output.path}", err=True)
    return 0


def _emit(spec: Spec, layout: Layout) -> Files:
    try:
        return emit(spec, layout)
    except Exception as error:
        error.add_note(f"while compiling {spec.file}{f', layout {layout.name}' if layout.name else ''}")
        raise


def _save_findings(spec: Spec, layout: Layout) -> int:
    if not layout.checkpoint.save:
        return 0
    found = save_findings(compile_graph(lower(spec.model), layout), layout, spec.root)
    for item in found:
        click.echo(render(item))
    return sum(item.severity == "error" for item in found)


def _dumps(spec: Spec, layout: Layout, folder: Path) -> list[Output]:
    graph = lower(spec.model)
    steps = [("lower", graph), *run(graph, layout)]
    return [Output(folder / f"{n:02}_{name}.txt", text(step)) for n, (name, step) in enumerate(steps)]


def _compare(outputs: list[Output], owners: dict[str, str], show: bool) -> int:
    """Tell what differs: from the disk to what a build writes, so + is what it would add."""
    stale = 0
    for output in outputs:
        old = output.on_disk()
        if old == output.text:
            continue
        stale += 1
        if show:
            names = (str(output.path) if old is not None else "/dev/null", str(output.path))
            old_lines, new_lines = (old or "").splitlines(True), output.text.splitlines(True)
            click.echo("".join(difflib.unified_diff(old_lines, new_lines, *names)), nl=False)
            continue
        spec = owners.get(output.path.stem)
        state = "is missing" if old is None else f"is not what specc writes{f' for {spec}' if spec else ''}"
        click.echo(f"{output.path} {state}")
    if stale and not show:
        specs = " ".join(dict.fromkeys(owners.values()))
        click.echo(f"To update, run `specc build {specs}`.")
    elif not stale:
        click.echo(f"{plural(len(outputs), 'file')} up to date", err=True)
    return 1 if stale else 0
