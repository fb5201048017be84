"""A config -> the spec of that model, short, with a comment on each line that says which field it comes from."""

from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path as File
from typing import Any

from specc.interop.choosing import Chosen, chosen, heading
from specc.interop.context import Unmapped
from specc.interop.fields import MODEL_TYPE, Fields, Path, dotted, error, inside, same, shown, split
from specc.interop.filling import Filled, Place, context, fill, holes
from specc.interop.holes import hole, read
from specc.interop.library import common
from specc.interop.schema import Data, Mapping, varied
from specc.interop.shorten import meaning_of, named_blocks, shortest
from specc.interop.text import lines_of
from specc.source import Diagnostic, Source
from specc.source import read as read_source

UNSAID = ("E601", "E602", "E604")
"""What a partial spec goes without."""


@dataclass(frozen=True)
class Imported:
    """The text of a spec and its data; `mapping` is that of the family, as the config's variant has it."""

    text: str
    data: Data
    mapping: Mapping
    config: Fields
    origins: dict[Place, tuple[Path, ...]] = field(default_factory=dict[Place, "tuple[Path, ...]"])


def import_config(
    source: Source, name: str | None = None, own: Mapping | None = None, part: str | None = None, partial: bool = False
) -> Imported | list[Diagnostic]:
    """The spec of a config, or all that keeps it from being one.

    `own` is a mapping to use, whatever the family; `part` a tower of several; `partial` leaves out what specc cannot
    say, and tells it in comments.
    """
    made = chosen(source, own, part, partial)
    return made if isinstance(made, list) else imported(made.fields, made.mapping, name or made.family, made)


def mapping_of(source: Source, own: Mapping | None = None) -> Mapping | list[Diagnostic]:
    """The mapping of a config, as the variant has it that its fields choose."""
    made = chosen(source, own)
    if isinstance(made, list):
        return made
    found: list[Diagnostic] = []
    fields = normal(made.fields, made.mapping, found)
    return found or varied(made.mapping, next((v for v in made.mapping.variants if holds(v.when, fields)), None))


def imported(
    given: Fields, mapping: Mapping, name: str | None = None, how: Chosen | None = None
) -> Imported | list[Diagnostic]:
    """The spec of a config of that family; what a partial one leaves out is told by its comments."""
    found: list[Diagnostic] = []
    fields = normal(given, mapping, found)
    mapping = varied(mapping, next((v for v in mapping.variants if holds(v.when, fields)), None))
    fields.used |= {split(name) for variant in mapping.variants for name in variant.when}
    made = Filled()
    data = fill(mapping.spec, fields, context(common(), mapping.tables), made)
    for path, problem in made.problems:
        value = shown(fields.get(path))
        found.append(error("E604", fields, path, f"{dotted(path)}{value} has no counterpart in specc: {problem}"))
    _required(mapping, fields, found)
    _unnamed(mapping, fields, found)
    for item in {split(name) for name in missing(mapping, fields)}:
        found.append(error("E605", fields, item, f"the config has no {dotted(item)}, and the family no default for it"))
    found = sorted(found, key=lambda item: (item.span.start if item.span else -1, item.code))
    left = [item for item in found if how is not None and how.partial and item.code in UNSAID]
    if len(left) < len(found):
        return found
    data = {"specc": 1, "name": spec_name(name or mapping.family), **named_blocks(data)}
    head = "" if how is None else heading(how, left)
    names = {} if how is None else how.names
    origins = {
        place: tuple(one for path in paths for one in names.get(path, (path,))) for place, paths in made.origins.items()
    }
    return _checked(Imported(head, data, mapping, fields, origins))


def _checked(made: Imported) -> Imported | list[Diagnostic]:
    """Short, under its heading and held to the rules of the language; what they say of a line is told at its fields."""
    family = made.mapping.family
    text, places = lines_of(made.data, made.origins, family)
    meant = meaning_of(text)
    if isinstance(meant, list):
        found: list[Diagnostic] = []
        for item in meant:
            line = item.span.place[0] if item.span else 0
            paths = made.origins.get(places.get(line, ()), ())
            where = f"{' and '.join(map(dotted, paths))}: " if paths else ""
            span = made.config.span(paths[0]) if paths else made.config.span(())
            found.append(Diagnostic("E606", f"{where}{item.message} ({item.code})", span, item.help))
        return found
    data = shortest(made.data, meant)
    text, _ = lines_of(data, made.origins, family)
    return replace(made, data=data, text=made.text + text)


def spec_name(text: str) -> str:
    """A text as the name of a spec."""
    return re.sub(r"[^a-z0-9._-]+", "-", text.lower().replace("_", "-")).strip("-._") or "model"


def normal(given: Fields, mapping: Mapping, found: list[Diagnostic]) -> Fields:
    """Older names replaced, and what the file leaves out filled in; E603 where names contradict each other."""
    fields = given.copy()
    for old, new in mapping.older.items():
        value = fields.pop(split(old))
        if value is None:
            continue
        pairs = [((), value)] if not isinstance(value, dict) else [((key,), inner) for key, inner in value.items()]
        for more, inner in pairs:
            path, other = (*split(new), *more), fields.get((*split(new), *more))
            if other is not None and other != inner:
                message = f"{dotted((*split(old), *more))} = {inner} and {dotted(path)} = {other} contradict each other"
                found.append(error("E603", given, split(old), message, "keep one of them"))
            else:
                fields.put(path, inner)
                fields.was[path] = (*split(old), *more)
    formulas: dict[Path, str] = {}
    specs = (mapping.spec, *(variant.spec for variant in mapping.variants))
    alone = {path for spec in specs for _, item in holes(spec) for path in item.fields}
    said = set(fields.values)
    for path, value in Fields(deepcopy(mapping.defaults)).leaves():
        if len(path) > 1 and path[0] in said and path not in alone:
            continue  # a rope of another type has other fields
        if isinstance(value, str) and "$" in value:
            formulas[path] = value
        elif fields.get(path) is None and not _stated(fields, path):
            fields.put(path, deepcopy(value))
    for path, text in formulas.items():
        made = hole(text)
        if fields.get(path) is None and made is not None:
            try:
                fields.put(path, read(made, fields.get, context(common(), mapping.tables)))
            except Unmapped as problem:
                found.append(error("E604", given, made.fields[0], f"{dotted(made.fields[0])}: {problem}"))
    fields.used.clear()
    return fields


def _stated(fields: Fields, path: Path) -> bool:
    at: Any = fields.values
    for part in path:
        if isinstance(at, dict) and part in at:
            at = at[part]
        elif isinstance(at, list) and inside(at, part) is not None:
            at = inside(at, part)
        else:
            return False
    return True


def holds(wanted: Data, fields: Fields) -> bool:
    """Whether the fields have these values."""
    return all(same(fields.get(split(name)), value) for name, value in wanted.items())


def missing(mapping: Mapping, fields: Fields) -> list[str]:
    """Fields of holes that have neither a value nor a default."""
    wanted = [path for _, item in holes(mapping.spec) for path in item.fields]
    usual = Fields(mapping.defaults)
    return [dotted(path) for path in wanted if not _stated(fields, path) and not _stated(usual, path)]


def _required(mapping: Mapping, fields: Fields, found: list[Diagnostic]) -> None:
    for name, wanted in mapping.require.items():
        path = split(name)
        value = fields.get(path)
        if _stated(fields, path) and not same(value, wanted):
            message = f"{name}{shown(value)} cannot be said in specc"
            found.append(error("E601", fields, path, message, f"with {shown(wanted)[3:]} the model imports"))


def _unnamed(mapping: Mapping, fields: Fields, found: list[Diagnostic]) -> None:
    """A field that nobody names is never dropped; null says nothing."""
    ignored = {split(name) for name in (*mapping.ignore, *mapping.require, *common().ignore)}
    inner = {path[:-1] for path, _ in fields.leaves() if path[-1] == MODEL_TYPE}  # configs in the config
    ignored |= {(*path, name) for path in inner for name in common().ignore}
    for path, value in fields.leaves():
        around = {path[:n] for n in range(1, len(path) + 1)}
        if value is not None and not around & (ignored | fields.used):
            message = f"the mapping of {mapping.family} does not name the field {dotted(path)}{shown(value)}"
            found.append(error("E602", fields, path, message, "if it does not matter, take it out of the config"))


def read_config(place: File) -> Source | list[Diagnostic]:
    """The text of a config, of a file or of the folder that it stands in."""
    return read_source(place / "config.json" if place.is_dir() else place)
