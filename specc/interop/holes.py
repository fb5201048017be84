"""Holes: texts of a mapping with fields of a config in them, read by putting values in and written by solving."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from specc.interop.context import Context, Several, Unmapped
from specc.interop.fields import Path, split
from specc.interop.functions import function

_TERM = re.compile(r"\$(?P<field>\w+(?:\.\w+)*)|(?P<number>[0-9]+(?:\.[0-9]+)?)")
_REPEATED = re.compile(r"(\w+)\*(\$.+)")


NULL = ("scaling", "limits", "projection", "numbered", "at_least", "amplitude")
"""Functions of which null has a value."""


@dataclass(frozen=True)
class Hole:
    """Terms joined by * and /, from the left, then functions with their arguments."""

    terms: tuple[tuple[str, Path | float], ...]
    functions: tuple[tuple[str, tuple[str, ...]], ...] = ()
    repeats: str = ""  # `dense*$n`: the name before the star

    @property
    def needs(self) -> tuple[int, int]:
        """How many fields stand in it, and how many its functions are given."""
        return len(self.terms), sum(arg.startswith("$") for _, args in self.functions for arg in args)

    @property
    def given(self) -> tuple[Path, ...]:
        """Fields that its functions are given."""
        return tuple(split(arg[1:]) for _, args in self.functions for arg in args if arg.startswith("$"))

    @property
    def fields(self) -> tuple[Path, ...]:
        return tuple(term for _, term in self.terms if isinstance(term, tuple))


def hole(text: object) -> Hole | None:
    """The hole that a text of a mapping is; None for what stands there as it is. Raises ValueError."""
    if not isinstance(text, str) or "$" not in text:
        return None
    if match := _REPEATED.fullmatch(text):
        inner = hole(match[2])
        assert inner is not None
        return Hole(inner.terms, inner.functions, match[1])
    product, *calls = (part.strip() for part in text.split("|"))
    words = product.split()
    if len(words) % 2 == 0 or any(word not in "*/" for word in words[1::2]):
        raise ValueError(f"{text} is no hole")
    terms: list[tuple[str, Path | float]] = []
    for sign, word in zip(("*", *words[1::2]), words[::2], strict=True):
        match = _TERM.fullmatch(word)
        if match is None:
            raise ValueError(f"{text} is no hole: {word} is neither a field nor a number")
        terms.append((sign, split(match["field"]) if match["field"] else float(match["number"])))
    return Hole(tuple(terms), tuple((name, tuple(args)) for name, *args in (call.split() for call in calls)))


def read(found: Hole, get: Callable[[Path], Any], context: Context) -> Any:
    """The value that goes into the spec, None where a field has none. Raises Unmapped."""
    value = _evaluate(found, get)
    for name, args in found.functions:
        if value is None and name not in context.tables and name not in NULL:
            return None
        given = tuple(_argument(arg, get) for arg in args)
        value = function(name, context.tables).read(value, given, context)
    if found.repeats and value is not None:
        return f"{found.repeats}*{value}" if value else None
    return value


def _argument(text: str, get: Callable[[Path], Any]) -> Any:
    """A field, a number or a word."""
    if text.startswith("$"):
        return get(split(text[1:]))
    return int(text) if text.isdecimal() else text


def _evaluate(found: Hole, get: Callable[[Path], Any]) -> Any:
    if len(found.terms) == 1:
        (_, only), *_ = found.terms
        return get(only) if isinstance(only, tuple) else only
    made = 1.0
    for sign, term in found.terms:
        value = get(term) if isinstance(term, tuple) else term
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)) or (sign == "/" and not value):
            raise Unmapped("it is no number to calculate with")
        made = made * value if sign == "*" else made / value
    return int(made) if made.is_integer() else made


def solve(found: Hole, value: Any, known: Callable[[Path], Any], context: Context) -> list[tuple[Path, Any]]:
    """Which fields have which values, where the hole has this one; none where all are known. Raises Unmapped."""
    more: list[tuple[Path, Any]] = []
    if found.repeats:
        name, _, count = str(value or f"{found.repeats}*0").partition("*")
        if name != found.repeats:
            raise Unmapped(f"it is {found.repeats} here, some times")
        value = int(count or 1)
    for name, args in reversed(found.functions):
        if value is None and name not in context.tables and name not in NULL:
            break
        given = tuple(_argument(arg, known) for arg in args)
        value = function(name, context.tables).write(value, given, context)
        if isinstance(value, Several):
            more += [(split(args[n][1:]), other) for n, other in value.others]
            value = value.value
    unknown = [n for n, (_, term) in enumerate(found.terms) if isinstance(term, tuple) and known(term) is None]
    if len(found.terms) == 1:
        (_, only), *_ = found.terms
        return [(only, value), *more] if isinstance(only, tuple) else more
    if len(unknown) != 1:
        return more
    (n,) = unknown
    if value is None:
        return more  # what it stands in is not there
    if not isinstance(value, (int, float)):
        raise Unmapped("it is no number to calculate with")
    rest = [
        (sign, known(term) if isinstance(term, tuple) else term) for i, (sign, term) in enumerate(found.terms) if i != n
    ]
    for sign, other in rest:
        value = value / other if sign == "*" else value * other
    sign, term = found.terms[n]
    assert isinstance(term, tuple)
    result = float(value if sign == "*" else 1 / value)
    return [(term, int(result) if result.is_integer() else result), *more]
