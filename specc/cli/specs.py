"""What all commands share: which specs, reading them, telling what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import click

from specc.source import Diagnostic, concise, read, render
from specc.spec import Layout, Spec, load

specs_argument = click.argument("specs", nargs=-1, type=click.Path(path_type=Path), metavar="[SPEC]...")


@dataclass
class Loaded:
    """Specs that are good, and whether all were."""

    specs: list[Spec]
    findings: int = 0
    unreadable: int = 0

    @property
    def code(self) -> int:
        """The exit code so far."""
        return 2 if self.unreadable else 1 if self.findings else 0


def load_all(paths: tuple[Path, ...], output_format: str = "text") -> Loaded:
    """Load each spec, by default all of specs/; findings go to stdout."""
    chosen = list(paths) or sorted(Path("specs").glob("*.yaml"))
    if not chosen:
        raise click.UsageError("no spec was named, and there is no specs/*.yaml here")
    result = Loaded([])
    for path in chosen:
        source = read(path)
        if isinstance(source, list):
            result.unreadable += 1
            _tell(source, output_format)
            continue
        spec = load(source)
        if isinstance(spec, list):
            result.findings += len(spec)
            _tell(spec, output_format)
        else:
            result.specs.append(spec)
    return result


def _tell(found: list[Diagnostic], output_format: str) -> None:
    for item in found:
        click.echo(concise(item) if output_format == "concise" else render(item))


def layout_of(spec: Spec, name: str | None) -> Layout:
    """The layout of that name, the first for None."""
    known = [layout.name for layout in spec.layouts if layout.name is not None]
    if name is not None and name not in known:
        named = f"its layouts are {', '.join(known)}" if known else "it has one layout without a name"
        raise click.UsageError(f"{spec.file} has no layout {name}: {named}")
    return spec.layout(name)


def plural(count: int, word: str) -> str:
    """`1 spec`, `2 specs`."""
    return f"{count} {word}{'' if count == 1 else 's'}"
