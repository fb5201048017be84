"""The mappings that come with specc, and reading one from anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from specc.interop.filling import Place, leaves
from specc.interop.functions import FUNCTIONS
from specc.interop.gaps import Gaps
from specc.interop.holes import hole
from specc.interop.names import lines
from specc.interop.schema import Common, Mapping
from specc.source import Diagnostic, Source, parse, plain, read, span_of

FOLDER = Path(__file__).parent
MAPS = FOLDER / "maps"
Model = TypeVar("Model", bound=BaseModel)


@cache
def families() -> tuple[str, ...]:
    """model_types that have a mapping, in order."""
    return tuple(sorted(path.stem for path in MAPS.glob("*.yaml")))


@cache
def common() -> Common:
    """What all families share. Raises ValueError where that file is wrong."""
    found = _read(FOLDER / "common.yaml", Common)
    if isinstance(found, list):
        raise ValueError("; ".join(item.message for item in found))
    return found


@cache
def gaps() -> Gaps:
    """What families have that the language has not. Raises ValueError where that file is wrong."""
    found = _read(FOLDER / "gaps.yaml", Gaps)
    if isinstance(found, list):
        raise ValueError("; ".join(f"{item.span}: {item.message}" for item in found))
    return found


def mapping(path: str | os.PathLike[str]) -> Mapping | list[Diagnostic]:
    """A mapping from a file, or what is wrong with it (E630)."""
    return _read(path, Mapping, _unsound)


def known(family: str) -> Mapping:
    """The mapping of a family of `families`. Raises ValueError where that file is wrong."""
    found = mapping(MAPS / f"{family}.yaml")
    if isinstance(found, list):
        raise ValueError("; ".join(f"{item.span}: {item.message}" for item in found))
    return found


def _unsound(made: Mapping) -> Iterator[tuple[Place, str]]:
    """Holes that are none, functions that there are not, lines whose two sides do not fit."""
    variants = [(("if", n), variant) for n, variant in enumerate(made.variants)]
    for at, part in ((), made), *variants:
        tables = {**made.tables, **part.tables}
        texts = [(("spec",), part.spec)] + ([(("defaults",), made.defaults)] if part is made else [])
        for (inside,), data in texts:
            for place, text in leaves(data, (*at, inside)):
                try:
                    found = hole(text)
                except ValueError as error:
                    yield place, str(error)
                    continue
                for name, _ in found.functions if found else ():
                    if name not in FUNCTIONS and name not in tables:
                        yield place, f"there is no function {name}, only {', '.join((*FUNCTIONS, *tables))}"
        for left, right in part.weights.items():
            try:
                list(lines({left: right} if right is not None else {}))
            except ValueError as error:
                yield (*at, "weights", left), str(error)


def _nothing(_: object) -> Iterator[tuple[Place, str]]:
    yield from ()


def _read(
    path: str | os.PathLike[str],
    model: type[Model],
    unsound: Callable[[Model], Iterator[tuple[Place, str]]] = _nothing,
) -> Model | list[Diagnostic]:
    source = read(path)
    if not isinstance(source, Source):
        return source
    parsed = parse(source)
    if parsed.root is None or parsed.found:
        return parsed.found
    try:
        made = model.model_validate(plain(parsed.root))
    except ValidationError as error:
        found: list[Diagnostic] = []
        for item in error.errors(include_url=False):
            where = ".".join(str(part) for part in item["loc"])
            span = span_of(parsed.root, item["loc"])
            found.append(Diagnostic("E630", f"this is no mapping: {where}: {item['msg'].lower()}", span))
        return found
    found = [Diagnostic("E630", message, span_of(parsed.root, place)) for place, message in unsound(made)]
    return found or made
