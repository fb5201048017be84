"""Functions and classes of a generated file: what their templates are filled from."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from specc.emit.code import Code, part
from specc.emit.wrap import wrapped

Lines = tuple[Code, ...]


@dataclass(frozen=True)
class Function:
    """A function or a method; parameters with their types."""

    name: Code
    takes: Code
    gives: Code
    body: Lines


@dataclass(frozen=True)
class Module:
    """A class of modules: its constructor and its methods. `doc` is one text or none."""

    name: Code
    doc: Lines
    takes: Code
    init: Lines
    methods: tuple[Function, ...]


def shape(template: str, **views: object) -> Code:
    """A template filled from views; lines that are too long are broken."""
    return Code("\n".join(row for line in part(template, **views).split("\n") for row in wrapped(line)))


def lines(texts: Iterable[str]) -> Lines:
    """Text that is source already, line by line."""
    return tuple(map(Code, texts))


def listed(texts: Iterable[str]) -> Code:
    """Source with commas between."""
    return Code(", ".join(texts))


def function(name: str, takes: Iterable[str], gives: str, body: Iterable[str]) -> Function:
    """Of texts that are source."""
    return Function(Code(name), listed(takes), Code(gives), lines(body))
