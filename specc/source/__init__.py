"""Text -> nodes with spans; diagnostics and their text."""

from __future__ import annotations

import os

from specc.source.diagnostic import Diagnostic, concise, render
from specc.source.guard import SIZE
from specc.source.span import Source, Span
from specc.source.yaml import Node, Path, find, parse, plain, span_of


def read(path: str | os.PathLike[str]) -> Source | list[Diagnostic]:
    """A file as a source named as it was asked for, or why it cannot be one."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = file.read(4 * SIZE + 1)
    except OSError as error:
        return [Diagnostic("E100", f"{name} cannot be read: {error.strerror or error}", None)]
    return decode(name, data)


def decode(name: str, data: bytes) -> Source | list[Diagnostic]:
    """UTF-8 with or without a mark; anything else, and control characters, is refused with its place."""
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        message = f"{name} is not UTF-8 text: byte 0x{data[error.start]:02x} at offset {error.start}"
        return [Diagnostic("E112", message, None, "a spec is a YAML text")]
    source = Source(name, text)
    for offset, character in enumerate(text[: SIZE + 1]):
        if not character.isprintable() and character not in "\t\n":
            span = Span(source, offset, offset + 1)
            return [Diagnostic("E113", f"the control character U+{ord(character):04X} is not part of specs", span)]
    return source


__all__ = [
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
    "read",
    "render",
    "span_of",
]
