"""Components of one's own: Python files that a spec names. To load one is to run it, so that it has to be allowed."""

from __future__ import annotations

import sys
import traceback
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from specc.extension import Extension, ExtensionError
from specc.source import Diagnostic, Node, find, plain, shown, span_of
from specc.tables import Tables, tables

KEY = "components"
NAME = "EXTENSION"
"""What such a file calls its extension."""


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
            found.append(Diagnostic("E280", message, span_of(root, (KEY, n)), help))
            continue
        try:
            known = tables((*known.extensions, loaded(Path(file).parent / name)))
        except ExtensionError as error:
            found.append(Diagnostic("E281", str(error), span_of(root, (KEY, n))))
    return found or known


def loaded(path: Path) -> Extension:
    """The extension in a file, which is run once. Other modules may stand beside it. Raises ExtensionError."""
    name, place = path.stem, path.resolve()
    if path.suffix != ".py" or not name.isidentifier() or not place.is_file():
        raise ExtensionError(f"{path} is no Python file")
    module = sys.modules.get(name)
    if module is None:
        spec = spec_from_file_location(name, place)
        assert spec is not None and spec.loader is not None, "it ends in .py"
        module = sys.modules[name] = module_from_spec(spec)
        if str(place.parent) not in sys.path:
            sys.path.append(str(place.parent))  # last: it hides nothing
        try:
            spec.loader.exec_module(module)
        except Exception as error:  # whatever it does
            del sys.modules[name]
            lines = [
                frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(place)
            ]
            where = f", line {lines[-1]}" if lines else ""
            raise ExtensionError(f"{path}{where}: {type(error).__name__}: {error}") from error
    elif Path(module.__file__ or "").resolve() != place:
        raise ExtensionError(f"{path} has the name of another module, {name}: rename it")
    made = getattr(module, NAME, None)
    if not isinstance(made, Extension):
        raise ExtensionError(f"{path} has no {NAME} that is an Extension")
    return made
