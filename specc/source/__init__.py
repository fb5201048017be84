"""Text -> nodes with spans; diagnostics and their text."""

from __future__ import annotations

import os
import stat

from specc.source.diagnostic import MOST, Diagnostic, concise, plural, render
from specc.source.guard import SIZE
from specc.source.span import Source, Span
from specc.source.yaml import Node, Path, find, parse, plain, shown, span_of

LIMIT = 4 * SIZE  # bytes of a text of SIZE characters, at most


def read(path: str | os.PathLike[str]) -> Source | list[Diagnostic]:
    """A file as a source named as it was asked for, or why it cannot be one."""
    name = os.fspath(path)
    try:
        with open(name, "rb", opener=_regular) as file:
            data = file.read(LIMIT + 1)
    except (OSError, ValueError) as error:  # a name with a NUL is a ValueError
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        return [Diagnostic("E100", f"{name} cannot be read: {reason}", None)]
    return decode(name, data)


def _regular(name: str, flags: int) -> int:
    """Opened without waiting for a writer; only what has an end is a spec."""
    file = os.open(name, flags | getattr(os, "O_NONBLOCK", 0))
    kind = os.fstat(file).st_mode
    if stat.S_ISREG(kind):
        return file
    os.close(file)
    raise OSError("it is a directory" if stat.S_ISDIR(kind) else "it is not a regular file")


def decode(name: str, data: bytes) -> Source | list[Diagnostic]:
    """UTF-8 with or without a mark; anything else, and control characters, is refused with its place."""
    try:
        text = data[:LIMIT].decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if len(data) > LIMIT and error.reason == "unexpected end of data":
            text = error.object[: error.start].decode("utf-8")
        else:
            return [_not_text(name, error)]
    source = Source(name, text.replace("\r\n", "\n"))
    for offset, character in enumerate(source.text[: SIZE + 1]):
        if not character.isprintable() and character not in "\t\n":
            return [_not_shown(character, Span(source, offset, offset + 1))]
    return source


def _not_shown(character: str, span: Span) -> Diagnostic:
    import unicodedata  # most texts have nothing of the kind

    kind = unicodedata.category(character)
    name = unicodedata.name(character, "control character" if kind == "Cc" else "character").lower()
    help = "use a plain space" if kind == "Zs" else None
    return Diagnostic("E113", f"the {name} U+{ord(character):04X} is not part of specs", span, help)


def _not_text(name: str, error: UnicodeDecodeError) -> Diagnostic:
    given = error.object  # without the mark
    before = given[: error.start].decode("utf-8", "replace").replace("\r\n", "\n")
    rest = given[error.start : error.start + 200].decode("utf-8", "replace")
    span = Span(Source(name, before + rest), len(before), len(before) + 1)
    message = f"this is not UTF-8 text: there is a byte 0x{given[error.start]:02x}"
    return Diagnostic("E112", message, span, "a spec is a YAML text in UTF-8")


__all__ = [
    "MOST",
    "Diagnostic",
    "Node",
    "Path",
    "Source",
    "Span",
    "concise",
    "decode",
    "find",
    "parse",
    "plain",
    "plural",
    "read",
    "render",
    "shown",
    "span_of",
]
