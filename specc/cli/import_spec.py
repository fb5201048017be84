"""specc import"""

from __future__ import annotations

from pathlib import Path

import click

from specc.cli.interchange import fail, map_option, put
from specc.cli.specs import Loaded


@click.command("import")
@click.argument("config", type=click.Path(path_type=Path))
@click.option("-o", "out", type=click.Path(path_type=Path), help="Where to write the spec; to stdout by default.")
@click.option("--name", help="Name of the spec; the family's by default.")
@click.option("--part", help="Of a config of several models the one to import: text for its text_config.")
@click.option("--partial", is_flag=True, help="Leave out what specc cannot say, and tell it in comments of the spec.")
@map_option
def import_spec(
    config: Path, out: Path | None, name: str | None, part: str | None, partial: bool, own: Path | None
) -> int:
    """Make a spec of a config.json of Hugging Face, or of the folder that has one."""
    from specc.interop.importing import Imported, import_config, read_config
    from specc.interop.library import mapping
    from specc.source import Source

    loaded = Loaded()
    source, given = read_config(config), None if own is None else mapping(own)
    for found in (source, given):
        if isinstance(found, list):
            loaded.tell(found)
            loaded.unreadable |= any(item.code == "E100" for item in found)
    if not isinstance(source, Source) or isinstance(given, list):
        return fail(loaded)
    made = import_config(source, name, given, part, partial)
    if not isinstance(made, Imported):
        loaded.tell(made)
        return fail(loaded)
    return put(out, made.text)
