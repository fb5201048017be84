"""specc export"""

from __future__ import annotations

from pathlib import Path

import click

from specc.cli.interchange import fail, family_option, map_option, put
from specc.cli.specs import load_all


@click.command("export")
@click.argument("spec", type=click.Path(path_type=Path))
@click.option("-o", "out", type=click.Path(path_type=Path), help="Where to write the config; to stdout by default.")
@family_option
@map_option
def export_spec(spec: Path, out: Path | None, family: str | None, own: Path | None) -> int:
    """Make a config.json of Hugging Face of a spec."""
    from specc.interop.exporting import Exported, export
    from specc.interop.library import mapping

    loaded = load_all((spec,))
    given = None if own is None else mapping(own)
    if isinstance(given, list):
        loaded.tell(given)
        return fail(loaded)
    if loaded.code:
        return fail(loaded)
    made = export(loaded.specs[0], family, given)
    if not isinstance(made, Exported):
        loaded.tell(made)
        return fail(loaded)
    return put(out, made.text)
