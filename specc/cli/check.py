"""specc check"""

from __future__ import annotations

from pathlib import Path

import click

from specc.cli.specs import load_all, plural, specs_argument
from specc.lower import lower
from specc.passes import compile_graph
from specc.passes.saves import save_findings
from specc.source import concise, render


@click.command()
@specs_argument
@click.option("--output-format", type=click.Choice(["text", "concise"]), default="text", help="How findings are told.")
def check(specs: tuple[Path, ...], output_format: str) -> int:
    """Validate specs and every layout of them."""
    loaded = load_all(specs, output_format)
    errors = loaded.findings
    for spec in loaded.specs:
        for layout in spec.layouts:
            for item in save_findings(compile_graph(lower(spec.model), layout), layout, spec.root):
                click.echo(concise(item) if output_format == "concise" else render(item))
                errors += item.severity == "error"
    if not errors and not loaded.unreadable:
        click.echo(f"{plural(len(loaded.specs), 'spec')} fine", err=True)
        return 0
    click.echo(f"{plural(errors, 'error')}", err=True)
    return loaded.code or 1
