"""A family of components with all that belongs to it: what specc's own tables are made of, and what a plug-in is."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from specc.components.base import Component
    from specc.emit.expr.base import Writer
    from specc.emit.forms.base import Form
    from specc.ops.base import OpDef

GROUP = "specc.extensions"
"""Entry points of that group are extensions that whoever installs a package has."""
NAME = "EXTENSION"
"""What a file beside a spec calls its own."""


class ExtensionError(Exception):
    """An extension that cannot be loaded, or that does not go with another."""


@dataclass(frozen=True)
class LayoutAxis:
    """A mesh axis that a layout may have: a key of it, and what stands there is how many ranks.

    `tokens` are the token axes that it splits, all of them alike in order, if the key `when` of the layout is true;
    `shards` the axes by which it splits parameters, those of all components too if `features` says so. `data`: its
    ranks are fed different tokens. `doc` says what it is, `words` what a layout does with it.
    """

    name: str
    doc: str
    words: str
    tokens: tuple[str, ...] = ()
    when: str = ""
    shards: tuple[str, ...] = ()
    features: bool = False
    data: bool = False


@dataclass(frozen=True, eq=False)
class Extension:
    """Compared by identity. What it leaves out it does not have.

    `components`: blocks of the language. `ops`: what they are lowered to. `forms`: modules that hold parameters, by
    role. `expressions`: how generated code writes each op, by kind. `kernels`: modules of torch functions that
    expressions call; their text is pasted, and only the interpreter imports them. `functions`: what the interpreter
    computes for each op, as "module:NAME" of a mapping by kind; it is imported where torch is. `axes`: of the mesh,
    outer to inner. `alike`: axes that ranks which are fed different tokens split wherever they split one of others.
    """

    name: str
    components: tuple[Component[Any], ...] = ()
    ops: tuple[OpDef, ...] = ()
    forms: tuple[Form, ...] = ()
    expressions: Mapping[str, Writer] = field(default_factory=dict[str, "Writer"])
    kernels: tuple[Path, ...] = ()
    functions: str = ""
    axes: tuple[LayoutAxis, ...] = ()
    alike: Mapping[str, tuple[str, ...]] = field(default_factory=dict[str, tuple[str, ...]])


def installed() -> tuple[Extension, ...]:
    """Extensions of installed packages, by name. Raises ExtensionError naming one that cannot be loaded."""
    from importlib.metadata import entry_points

    return tuple(named(point.value) for point in sorted(entry_points(group=GROUP), key=lambda point: point.name))


def named(place: str) -> Extension:
    """The extension at "module:NAME". Raises ExtensionError."""
    module, _, name = place.partition(":")
    try:
        made = getattr(import_module(module), name)
    except Exception as error:  # whatever its module does
        raise ExtensionError(f"the extension {place} cannot be loaded: {error}") from error
    if not isinstance(made, Extension):
        raise ExtensionError(f"the extension {place} is a {type(made).__name__}")
    return made


def in_file(path: Path) -> Extension:
    """The extension in a file, which is run once. Other modules may stand beside it. Raises ExtensionError."""
    name, place = path.stem, path.resolve()
    if path.suffix != ".py" or not name.isidentifier() or not place.is_file():
        raise ExtensionError(f"{path} is no Python file")
    module = sys.modules.get(name)
    if module is None:
        from importlib.util import module_from_spec, spec_from_file_location

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
