"""What `specc plan --search` does and says."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import click

from specc.cli.seconds import between
from specc.cli.table import Lines, table
from specc.compile import Compiled, compile_spec
from specc.cost.fed import fed
from specc.cost.memory import GIB
from specc.cost.search import Found, Made, Wish, reason, search
from specc.ir.graph import Graph
from specc.source import Diagnostic, Source, plural, read, span_of
from specc.spec import Layout, Spec, load
from specc.spec.core import Checkpoint


def searched(path: Path, spec: Spec, layout: Layout, wish: Wish, seq: int | None) -> list[Found] | Diagnostic:
    """The fastest layouts that fit, or that there is none."""
    source = read(path)
    assert isinstance(source, Source), "it was read before"
    rest = _without_layouts(source.text)

    known: dict[Layout, Compiled] = {}

    def make(text: str) -> Made | None:
        own = load(Source(source.name, f"{rest}\nlayout: {text}\n"), spec.model.tables)
        if not isinstance(own, Spec):
            return None
        alike = replace(own.layouts[0], checkpoint=Checkpoint())
        compiled = compile_spec(own, own.layouts[0], known.get(alike))
        known.setdefault(alike, compiled)
        wrong = any(item.severity == "error" for item in compiled.findings)
        return None if wrong else (own.layouts[0], compiled.placed)

    def feed(one: Layout, graph: Graph) -> dict[str, int] | None:
        given = fed(spec, one, graph, wish.rows, seq)
        return None if isinstance(given, Diagnostic) else given

    layers = sum(stack.layers for stack in spec.model.stacks)
    found = search(wish, layers, layout.precision, make, feed)
    if found:
        return found
    message = f"no layout of {wish.ranks} x {wish.device.name} with a batch of {plural(wish.rows, 'sequence')} fits"
    span = None if spec.root is None else span_of(spec.root, ("d_model",))
    return Diagnostic("E703", message, span, "more devices, shorter sequences, or a batch that they can share out")


def _without_layouts(text: str) -> str:
    """The lines of a spec but those of its layouts."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines():
        if line[:1].strip() and not line.startswith("#"):
            inside = line.startswith(("layout:", "layouts:"))
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def tell_search(found: list[Found], wish: Wish, as_json: bool) -> None:
    """A line a layout with the reason against the one before, and the first to paste."""
    if as_json:
        told = [{"layout": one.text, "seconds": asdict(one.seconds), "peak": one.peak} for one in found]
        click.echo(json.dumps(told, indent=2))
        return
    lines: Lines = [("", "layout", "seconds a step", "GiB", "against the one before")]
    for number, one in enumerate(found):
        why = reason(one, found[number - 1]) if number else ""
        seconds = between(one.seconds.low, one.seconds.high)
        lines.append((str(number + 1), one.text, seconds, f"{one.peak / GIB:.1f}", why))
    table(lines, right=(3,))
    click.echo(f"\nfastest of {wish.ranks} x {wish.device.name}:\n\nlayout: {found[0].text}")
