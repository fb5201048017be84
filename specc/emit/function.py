"""Functions and classes of a generated file as lines, broken where they are too long."""

from __future__ import annotations

from collections.abc import Iterable

from specc.emit.code import Code, part
from specc.emit.wrap import wrapped

Lines = list[str]


def shape(template: str, **views: object) -> Code:
    """A template filled from views; lines that are too long are broken."""
    return Code("\n".join(row for line in part(template, **views).split("\n") for row in wrapped(line)))


def function(name: str, takes: Iterable[str], gives: str, doc: str, body: Iterable[str]) -> Lines:
    """`takes` are the parameters with their types; `gives` may be empty, for a constructor."""
    head = f"def {name}({', '.join(takes)}){f' -> {gives}' if gives else ''}:"
    return [*wrapped(head), *inner([f'"""{doc}"""'] * bool(doc)), *inner(body)]


def of_class(name: str, base: str, doc: str, methods: Iterable[Lines]) -> Lines:
    """A class: its methods with a line between."""
    lines = [f"class {name}{f'({base})' if base else ''}:", *inner([f'"""{doc}"""'] * bool(doc))]
    for method in methods:
        lines += ["", *inner(method)] if len(lines) > 1 else inner(method)
    return lines


def inner(lines: Iterable[str]) -> Lines:
    """The lines one level deeper; what is then too long is broken."""
    return [row for line in lines for row in (wrapped(f"    {line}") if line else [""])]
