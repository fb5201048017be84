"""The boundary between data and templates: only source text marked as such, numbers and validated names pass it."""

from __future__ import annotations

import builtins
import keyword
import os
import re
import sys
from functools import cache
from math import isfinite
from pathlib import Path

from jinja2 import Environment, FileSystemBytecodeCache, FileSystemLoader, StrictUndefined, Undefined
from markupsafe import Markup

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}", re.ASCII)


class Code(Markup):
    """Text that is Python source already."""


def lit(value: str | int | float | bool | None) -> Code:
    """A constant as source. Raises ValueError for numbers that are not finite, which have no literal."""
    if isinstance(value, float) and not isfinite(value):
        raise ValueError(f"{value!r} has no literal")
    return Code(_quoted(value) if isinstance(value, str) else repr(value))


def _quoted(text: str) -> str:
    """As the formatter quotes: double quotes unless that needs more escapes."""
    inner = repr(text)[1:-1]
    if repr(text)[0] == "'":
        inner = inner.replace("\\'", "'")
        return repr(text) if '"' in text and "'" not in text else '"' + inner.replace('"', '\\"') + '"'
    return f'"{inner}"'


def ident(name: str) -> Code:
    """A name as source. Raises ValueError for what is not a plain ASCII name, or would shadow Python's own."""
    if not _IDENTIFIER.fullmatch(name) or keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ValueError(f"{name!r} is not a name")
    if hasattr(builtins, name):
        raise ValueError(f"{name!r} would shadow a builtin")
    return Code(name)


def docstring(text: str) -> Code:
    """The inside of a triple-quoted string. Raises ValueError for control characters other than line ends."""
    if any((ord(c) < 32 and c != "\n") or 0x7F <= ord(c) < 0xA0 or ord(c) in _BIDI for c in text):
        raise ValueError("control characters in a docstring")
    safe = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return Code(safe[:-1] + '\\"' if safe.endswith('"') and not safe.endswith('\\"') else safe)


_BIDI = (*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0x061C)


def finalize(value: object) -> object:
    """What an expression of a template may give. Raises TypeError for text that is not Code."""
    if isinstance(value, Undefined):
        return str(value)  # raises, naming the variable
    if hasattr(value, "__html__"):
        return value
    if value is None or type(value) in (bool, int) or (type(value) is float and isfinite(value)):
        return Code(repr(value))
    raise TypeError(f"unmarked {type(value).__name__} {value!r} reached a template")


def _bytecode(folder: Path) -> FileSystemBytecodeCache | None:
    """Compiled templates are kept where Python keeps its own byte code, if it does: a twentieth of a build."""
    kept = folder.is_dir() and os.access(folder, os.W_OK) and not sys.dont_write_bytecode
    return FileSystemBytecodeCache(str(folder)) if kept else None


@cache
def environment() -> Environment:
    """Templates of the wheel (specc/templates), else those beside the package in a checkout."""
    package = Path(__file__).parents[1]
    folder = next(place for place in (package / "templates", package.parent / "templates") if place.is_dir())
    return Environment(
        loader=FileSystemLoader(folder),
        bytecode_cache=_bytecode(Path(__file__).parent / "__pycache__"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=finalize,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def render(template: str, **values: object) -> Code:
    """The template filled in; a value that it names and is not given is an error."""
    return Code(environment().get_template(template).render(values))


def part(template: str, **values: object) -> Code:
    """The same without the line end after it."""
    return Code(render(template, **values).rstrip("\n"))
