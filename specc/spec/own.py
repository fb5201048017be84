"""Components of one's own: Python files that a spec names. To load one is to run it, so that it has to be allowed."""

from __future__ import annotations

from pathlib import Path

from specc.extension import ExtensionError, in_file
from specc.source import Diagnostic, Node, find, plain, shown, span_of
from specc.tables import Tables, tables

KEY = "components"


def with_own(root: Node, file: str, known: Tables, allowed: bool) -> Tables | list[Diagnostic]:
    """The tables with what the spec's own files bring, which stand beside it; or why they cannot be had."""
    node = find(root, (KEY,))
    named = None if node is None else plain(node)
    if not isinstance(named, list) or not all(isinstance(item, str) for item in named):  # pyright: ignore[reportUnknownVariableType]
        return known  # what else stands there has the wrong shape
    found: list[Diagnostic] = []
    for n, name in enumerate(map(str, named)):  # pyright: ignore[reportUnknownArgumentType]
        if not allowed:
            message, help = f"{shown(name)} is code, which specc would run", "if you trust it, give --allow-components"
            found.append(Diagnostic("E298", message, span_of(root, (KEY, n)), help))
            continue
        try:
            known = tables((*known.extensions, in_file(Path(file).parent / name)))
        except ExtensionError as error:
            found.append(Diagnostic("E299", str(error), span_of(root, (KEY, n))))
    return found or known
