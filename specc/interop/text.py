"""A spec as YAML, a key a line, with what it comes from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

from specc.interop.fields import Path, dotted
from specc.interop.filling import Place
from specc.interop.schema import Data
from specc.source.scalars import scalar

_PLAIN = re.compile(r"[A-Za-z_][\w./*()+-]*( [\w./*()+-]+)*")


def lines_of(data: Data, origins: Mapping[Place, tuple[Path, ...]], family: str) -> tuple[str, dict[int, Place]]:
    """The text, and the place of the value on each of its lines."""
    lines: list[str] = []
    places: dict[int, Place] = {}
    for text, place in _lines(data, (), ""):
        fields = origins.get(place) or tuple(
            dict.fromkeys(path for other, paths in origins.items() if other[: len(place)] == place for path in paths)
        )
        inner = text.rstrip().endswith((":", "-"))
        comment = "" if inner or len(place) < 1 or place in (("specc",), ("name",)) else ", ".join(map(dotted, fields))
        why = comment or ("" if inner or not family or len(place) < 2 else f"all of {family}")
        lines.append(f"{text}  # {why}" if why else text)
        places[len(lines)] = place
    return "\n".join(lines) + "\n", places


def _lines(value: Any, at: Place, indent: str) -> Iterator[tuple[str, Place]]:
    if isinstance(value, dict):
        for key, inner in cast(Data, value).items():
            yield from _entry(f"{indent}{key}:", inner, (*at, key), indent + "  ")
    else:
        for n, item in enumerate(cast(list[Any], value)):
            first = True
            for text, place in _lines(item, (*at, n), indent + "  "):
                yield (f"{indent}- {text[len(indent) + 2 :]}" if first else text), place
                first = False


def _entry(start: str, value: Any, at: Place, indent: str) -> Iterator[tuple[str, Place]]:
    if (isinstance(value, dict) and value) or (isinstance(value, list) and any(isinstance(v, dict) for v in value)):
        yield start, at
        yield from _lines(value, at, indent)
    else:
        yield f"{start} {flow(value)}", at


def flow(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {flow(inner)}" for key, inner in cast(Data, value).items()) + "}"
    if isinstance(value, list):
        return f"[{', '.join(flow(item) for item in cast(list[Any], value))}]"
    if isinstance(value, str):
        plain = _PLAIN.fullmatch(value) and scalar(value) == value
        return value if plain else json.dumps(value)
    return json.dumps(value)
