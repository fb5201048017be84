"""specc check"""

from __future__ import annotations

from pathlib import Path

import click

from specc.cli.specs import load_all, specs_argument
from specc.compile import compile_spec
from specc.emit import emit
from specc.source import plural


@click.command()
@specs_argument
@click.option("--output-format", type=click.Choice(["text", "concise"]), default="text", help="How findings are told.")
def check(specs: tuple[Path, ...], output_format: str) -> int:
    """Validate specs and every layout of them."""
    loaded = load_all(specs, output_format)
    for spec in loaded.specs:
        for layout in spec.layouts:
            compiled = compile_spec(spec, layout)
            loaded.tell(compiled.findings)
            if not any(item.severity == "error" for item in compiled.findings):
                emit(spec, layout, compiled)  # what is fine can be built: whatever goes wrong here is told as a bug
    return loaded.finish(f"{plural(len(loaded.specs), 'spec')} fine")
