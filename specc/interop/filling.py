"""A template filled with the fields of a config, and solved for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

from specc.interop.context import Context, Unmapped
from specc.interop.fields import Fields, Path, dotted
from specc.interop.holes import Hole, hole, read, solve
from specc.interop.schema import Common, Data

Place = tuple[str | int, ...]
GONE = object()  # in the place of a hole without a value; null in a template stands for itself


@dataclass
class Filled:
    """What a template makes: where a value comes from fields, and which fields cannot be said."""

    origins: dict[Place, tuple[Path, ...]] = field(default_factory=dict[Place, "tuple[Path, ...]"])
    problems: list[tuple[Path, str]] = field(default_factory=list[tuple[Path, str]])


def context(common: Common, tables: dict[str, Data], default: Any = None, layers: int | None = None) -> Context:
    """What functions may ask, templates inside of them among it."""

    def fill_in(template: Data, values: Data) -> tuple[Data, set[str]]:
        fields, made = Fields(dict(values)), Filled()
        data = fill(template, fields, context(common, tables), made)
        for path, problem in made.problems:
            raise Unmapped(f"{dotted(path)}: {problem}")
        return data, {path[0] for path in fields.used}

    def match_in(template: Data, values: Data) -> Data | None:
        solved = Solved(common, tables)
        solve_for(template, values, solved)
        constants = ((place, value) for place, value in leaves(template, ()) if hole(value) is None)
        unlike = solved.problems or any(at_place(values, place) != value for place, value in constants)
        return None if unlike else solved.values.values

    return Context(common, tables, default, layers, fill_in, match=match_in)


def fill(template: Any, fields: Fields, given: Context, made: Filled, at: Place = ()) -> Any:
    """The template with values in its holes; the key of a hole without one is left out."""
    if isinstance(template, dict):
        layers = fields.get(found.fields[0]) if (found := hole(cast(Data, template).get("layers"))) else None
        given = replace(given, layers=layers) if isinstance(layers, int) else given
        inner = {key: fill(value, fields, given, made, (*at, key)) for key, value in cast(Data, template).items()}
        return {key: value for key, value in inner.items() if value is not GONE}
    if isinstance(template, list):
        parts = [fill(value, fields, given, made, (*at, n)) for n, value in enumerate(cast(list[Any], template))]
        return [part for part in parts if part is not GONE]
    found = hole(template)
    if found is None:
        return template
    seen: set[str] = set()
    try:
        value = read(found, fields.get, replace(given, seen=seen, beside=fields.get))
    except Unmapped as problem:
        (first, *_) = found.fields
        made.problems.append(((*first, *problem.at), str(problem)))
        fields.used |= set(found.fields)
        return GONE
    fields.used |= {(*first, name) for first in found.fields for name in seen}
    made.origins[at] = tuple((*first, name) for first in found.fields for name in sorted(seen)) or found.fields
    return GONE if value is None else value


@dataclass
class Solved:
    """What fields must be for a template to make a value; `usual` is what they are by default."""

    common: Common
    tables: dict[str, Data]
    usual: Callable[[Path], Any] = lambda path: None
    values: Fields = field(default_factory=lambda: Fields({}))
    problems: list[tuple[Place, str]] = field(default_factory=list[tuple[Place, str]])
    layers: int | None = None


def leaves(template: Any, at: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value that is neither mapping nor list, by its place."""
    if isinstance(template, dict):
        for key, value in cast(Data, template).items():
            yield from leaves(value, (*at, key))
    elif isinstance(template, list):
        for n, value in enumerate(cast(list[Any], template)):
            yield from leaves(value, (*at, n))
    else:
        yield at, template


def holes(template: Any, at: Place = ()) -> Iterator[tuple[Place, Hole]]:
    """Every hole of a template by its place."""
    for place, value in leaves(template, at):
        if (found := hole(value)) is not None:
            yield place, found


def at_place(data: Any, place: Place) -> Any:
    """The value there, None where there is none."""
    for part in place:
        if isinstance(data, Mapping):
            data = cast(Data, data).get(str(part))
        elif isinstance(data, list) and isinstance(part, int):
            items = cast(list[Any], data)
            data = items[part] if part < len(items) else None
        else:
            return None
    return data


def solve_for(template: Data, data: Data, made: Solved) -> None:
    """Solve each hole for the value of the data there; those of several fields once the others are known."""
    found = list(holes(template))
    for place, item in sorted(found, key=lambda pair: pair[1].needs):
        value = at_place(data, place)
        if place[0] == "blocks" and at_place(data, place[:2]) is None:
            continue  # no layer runs that block
        above = (at_place(data, (*place[:n], "layers")) for n in reversed(range(len(place))))
        layers = next((count for count in above if count is not None), None)
        usual = made.usual(item.fields[0]) if len(item.terms) == 1 else None
        try:
            solved = solve(item, value, made.values.get, context(made.common, made.tables, usual, layers))
        except Unmapped as problem:
            made.problems.append((place, f"{'.'.join(map(str, place))} = {value}: {problem}"))
            continue
        for path, one in solved:
            _set(made, place, path, one)


def _set(made: Solved, place: Place, path: Path, value: Any) -> None:
    known = made.values.get(path)
    if isinstance(value, dict):
        for key, inner in cast(Data, value).items():
            _set(made, place, (*path, key), inner)
    elif known is None or isinstance(known, dict):
        made.values.put(path, value)
    elif known != value and value is not None:
        where = ".".join(map(str, place))
        made.problems.append((place, f"{where} makes {dotted(path)} = {value}, another key makes it {known}"))
