"""A config: its fields, where each stands in the file, and which were read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any, cast

from specc.source import Diagnostic, Node, Source, Span, find, parse, span_of

Path = tuple[str, ...]
MODEL_TYPE = "model_type"


def dotted(path: Path) -> str:
    """`rope_parameters.rope_theta`"""
    return ".".join(path)


def split(name: str) -> Path:
    """The path of a dotted name."""
    return tuple(name.split("."))


def inside(value: Any, part: str) -> Any:
    """What a mapping has under a name, a list at a number; None where there is none."""
    if isinstance(value, list) and part.isdecimal():
        items = cast(list[Any], value)
        return items[int(part)] if int(part) < len(items) else None
    return cast(dict[str, Any], value).get(part) if isinstance(value, dict) else None


def with_lists(value: Any) -> Any:
    """Mappings whose names are the numbers from 0 on as lists."""
    if not isinstance(value, dict):
        return value
    given = cast(dict[str, Any], value)
    if given and set(given) == {str(n) for n in range(len(given))}:
        return [with_lists(given[str(n)]) for n in range(len(given))]
    return {key: with_lists(inner) for key, inner in given.items()}


@dataclass
class Fields:
    """`values` by name; `used` are the paths that were read, `stated` is what the file itself says."""

    values: dict[str, Any]
    source: Source | None = None
    root: Node | None = None
    stated: dict[str, Any] = field(default_factory=dict[str, Any])
    used: set[Path] = field(default_factory=set[Path])
    was: dict[Path, Path] = field(default_factory=dict[Path, Path])  # where a value stands in an older file

    def get(self, path: Path) -> Any:
        """The value, None where there is none; a mapping is not read by that, what is in it is."""
        value: Any = self.values
        for n, part in enumerate(path):
            if isinstance(value, list):
                self.used.add(path[:n])
            value = inside(value, part)
        if not isinstance(value, dict):
            self.used.add(path)
        return cast(Any, value)

    def put(self, path: Path, value: Any) -> None:
        """Set it, in mappings that may not be there yet."""
        inside = self.values
        for part in path[:-1]:
            if not isinstance(inside.get(part), dict):
                inside[part] = {}
            inside = inside[part]
        inside[path[-1]] = value

    def pop(self, path: Path) -> Any:
        """Take a value out, None where there is none."""
        inside: Any = self.values
        for part in path[:-1]:
            inside = cast(dict[str, Any], inside).get(part) if isinstance(inside, dict) else None
        return cast(dict[str, Any], inside).pop(path[-1], None) if isinstance(inside, dict) else None

    def span(self, path: Path) -> Span | None:
        """Where it stands in the file; what does not stand there is at the nearest mapping around it."""
        for n in range(len(path), 0, -1):
            if path[:n] in self.was:
                path = (*self.was[path[:n]], *path[n:])
                break
        if self.root is not None:
            return span_of(self.root, path)
        return None if self.source is None else Span(self.source, 0, 0)

    def leaves(self) -> Iterator[tuple[Path, Any]]:
        """Every value that is no mapping, by its path; an empty mapping is one."""
        yield from _leaves((), self.values)

    def within(self, path: Path) -> Fields:
        """The fields of a mapping in it, with their places."""
        values: Any = self.values
        for part in path:
            values = inside(values, part)
        root = None if self.root is None else find(self.root, path)
        return Fields(deepcopy(values), self.source, root, deepcopy(values)) if path else self

    def copy(self) -> Fields:
        """With values of its own."""
        return Fields(deepcopy(self.values), self.source, self.root, self.stated, set(), dict(self.was))


def part_names(fields: Fields) -> list[str]:
    """Fields that are configs of their own."""
    inner = ((name, value) for name, value in fields.values.items() if isinstance(value, dict))
    return [name for name, value in inner if isinstance(cast(dict[str, Any], value).get(MODEL_TYPE), str)]


def same(a: Any, b: Any) -> bool:
    """Equal, and neither a truth value unless both are."""
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def shown(value: Any) -> str:
    """` = 0.1`, nothing for a mapping."""
    text = str(value).lower() if isinstance(value, bool) else "null" if value is None else str(value)
    return "" if isinstance(value, dict) else f" = {text if len(text) <= 60 else f'{text[:57]}...'}"


def error(code: str, fields: Fields, path: Path, message: str, help: str | None = None) -> Diagnostic:
    """A finding at a field."""
    return Diagnostic(code, message, fields.span(path), help)


def _leaves(at: Path, value: Any) -> Iterator[tuple[Path, Any]]:
    if isinstance(value, dict) and value:
        for key, inner in cast(dict[str, Any], value).items():
            yield from _leaves((*at, key), inner)
    elif at:
        yield at, value


def fields_of(source: Source) -> Fields | list[Diagnostic]:
    """The fields of a JSON text (E600), a name that is given twice with two values being a contradiction (E603)."""
    twice: list[str] = []

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key, value in pairs:
            if key in made and made[key] != value:
                twice.append(key)
            made.setdefault(key, value)
        return made

    try:
        values = json.loads(source.text, object_pairs_hook=once)
    except RecursionError:
        return [Diagnostic("E600", f"{source.name} is nested too deep for a config", Span(source, 0, 1))]
    except json.JSONDecodeError as error:
        message = f"{source.name} is not JSON: {error.msg.lower()}"
        return [Diagnostic("E600", message, Span(source, error.pos, error.pos + 1), "a config is one JSON object")]
    if not isinstance(values, dict):
        return [Diagnostic("E600", f"{source.name} is no config", Span(source, 0, 1), "a config is one JSON object")]
    parsed = parse(source)  # JSON is YAML but for rare escapes; spans are all that is wanted of it
    made = Fields(cast(dict[str, Any], values), source, parsed.root, deepcopy(cast(dict[str, Any], values)))
    found = [
        Diagnostic("E603", f"{key} is given twice, with two values", made.span((key,)), "keep one of them")
        for key in twice
    ]
    return found or made
