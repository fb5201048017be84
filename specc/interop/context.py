"""What functions of holes are, and what they may ask: tables of the mapping, a default, layers of the stack.

Each reads a value of a config as one of a spec, and writes it back. `Unmapped` says in its message why a value has no
counterpart.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from specc.interop.schema import Common, Data


class Unmapped(ValueError):
    """A value without a counterpart on the other side; `at` is the field of it that has none."""

    def __init__(self, message: str, at: tuple[str, ...] = ()):
        super().__init__(message)
        self.at = at


@dataclass(frozen=True)
class Context:
    """What functions may ask."""

    common: Common
    tables: dict[str, Data]
    default: Any = None
    layers: int | None = None
    fill: Callable[[Data, dict[str, Any]], tuple[Data, set[str]]] | None = None  # a template by the fields of a mapping
    beside: Callable[[tuple[str, ...]], Any] = lambda path: None  # other fields of the config
    match: Callable[[Data, Data], dict[str, Any] | None] | None = None
    seen: set[str] = field(default_factory=set[str])  # which fields of a mapping were read


@dataclass(frozen=True)
class Function:
    """Both ways. `read(value, args, context)` gives the value of the spec, `write` that of the config."""

    read: Callable[[Any, tuple[Any, ...], Context], Any]
    write: Callable[[Any, tuple[Any, ...], Context], Any]


@dataclass(frozen=True)
class Several:
    """A value that is written to the field of a hole, and others to fields that its function is given, by number."""

    value: Any
    others: tuple[tuple[int, Any], ...]


def key_of(value: Any) -> str:
    """A value of a config as the key of a table."""
    return value if isinstance(value, str) else json.dumps(value)


def value_of(key: str | int) -> Any:
    """What `key_of` made the key of: numbers and the like, else a text."""
    if not isinstance(key, str):
        return key
    try:
        return json.loads(key)
    except ValueError:
        return key


def choices(table: dict[str, Any]) -> str:
    """The keys of a table, for a message."""
    return ", ".join(table)


def as_is(value: Any, *_: Any) -> Any:
    """Of what is the same on both sides."""
    return value


def one_way(*_: Any) -> Any:
    """Of what is worked out from other fields and never written. Raises Unmapped."""
    raise Unmapped("this is worked out from other fields")
