"""What all commands share: which specs, reading them, telling what is wrong with them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import click

from specc.cli import Chosen
from specc.extension import ExtensionError, installed, named
from specc.source import MOST, Diagnostic, Source, concise, plural, read, render, span_of
from specc.spec import Layout, Spec, load
from specc.spec.names import module_name
from specc.tables import tables

specs_argument = click.argument("specs", nargs=-1, type=click.Path(path_type=Path), metavar="[SPEC]...")


@dataclass
class Loaded:
    """Specs that are good, and how many errors the others have."""

    output_format: str = "text"
    specs: list[Spec] = field(default_factory=list[Spec])
    errors: int = 0
    unreadable: bool = False
    told: int = 0

    @property
    def code(self) -> int:
        """The exit code so far."""
        return 2 if self.unreadable else 1 if self.errors else 0

    def tell(self, found: list[Diagnostic]) -> None:
        """Print findings to stdout, and count the errors."""
        show = concise if self.output_format == "concise" else render
        for item in found[: max(0, MOST - self.told)]:
            click.echo(show(item))
        self.told += len(found)
        self.errors += sum(item.severity == "error" for item in found)

    def finish(self, done: str, undone: str = "") -> int:
        """Say on stderr how it went, and give the exit code."""
        more = f", {self.told - MOST} findings are not shown" if self.told > MOST else ""
        click.echo(f"{plural(self.errors, 'error')}{more}{undone}" if self.errors else done, err=True)
        return self.code


def load_all(paths: tuple[Path, ...], output_format: str = "text") -> Loaded:
    """Load each spec, by default all of specs/; findings go to stdout."""
    options = _options()
    chosen = list(dict.fromkeys(paths)) or sorted([*Path("specs").glob("*.yaml"), *Path("specs").glob("*.yml")])
    if not chosen:
        raise click.UsageError("no spec was named, and there is no specs/*.yaml here")
    result = Loaded(output_format)
    try:
        known = tables((*installed(), *map(named, options.extensions)))
    except ExtensionError as error:
        raise click.ClickException(str(error)) from error
    for path in chosen:
        source = read(path)
        spec = load(source, known, options.own) if isinstance(source, Source) else source
        if isinstance(spec, Spec):
            result.specs.append(spec)
        else:
            result.tell(spec)
            result.unreadable |= any(item.code == "E100" for item in spec)
    _same_file(result)
    return result


def _options() -> Chosen:
    context = click.get_current_context(silent=True)
    return context.obj if context is not None and isinstance(context.obj, Chosen) else Chosen()


def stem(spec: Spec, layout: Layout) -> str:
    """Name of the file that is written, without its ending; the first layout is that of the plain name."""
    name = module_name(spec.model.name)
    return name if layout is spec.layouts[0] else f"{name}_{layout.name}"


def _same_file(loaded: Loaded) -> None:
    """Two specs that would be written to one place are a finding, whichever layout is built."""
    owners: dict[str, Spec] = {}
    for spec in loaded.specs:
        others = ((name := stem(spec, layout), owners.setdefault(name, spec)) for layout in spec.layouts)
        name, other = next((pair for pair in others if pair[1] is not spec), ("", spec))
        if other is not spec:
            span = None if spec.root is None else span_of(spec.root, ("name",))
            message = f"{spec.file} and {other.file} would both be written to {name}.py"
            loaded.tell([Diagnostic("E209", message, span, "give one of them another name")])


def layout_of(spec: Spec, name: str | None) -> Layout:
    """The layout of that name, the first for None."""
    known = [layout.name for layout in spec.layouts if layout.name is not None]
    if name is not None and name not in known:
        named = f"its layouts are {', '.join(known)}" if known else "it has one layout without a name"
        raise click.UsageError(f"{spec.file} has no layout {name}: {named}")
    return spec.layout(name)
