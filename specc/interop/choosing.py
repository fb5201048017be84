"""Which mapping reads a config: its family's, or that of a family that is like it; or what is in the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, cast

from specc.interop.context import Unmapped
from specc.interop.fields import MODEL_TYPE, Fields, Path, error, fields_of, part_names, split
from specc.interop.filling import context, holes
from specc.interop.gaps import Gap, Lacking, Like, asking, dropped, part, said, told
from specc.interop.holes import hole, read
from specc.interop.library import common, families, gaps, known
from specc.interop.schema import Mapping, overlay
from specc.source import Diagnostic, Source

SHOWN = 8  # names of fields in a message


@dataclass(frozen=True)
class Chosen:
    """Fields under the names of the mapping. `left` is what a partial spec goes without, `notes` what it is told."""

    fields: Fields
    mapping: Mapping
    family: str | None = None
    partial: bool = False
    left: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    names: dict[Path, tuple[Path, ...]] = field(default_factory=dict[Path, "tuple[Path, ...]"])  # that the config has


def chosen(
    source: Source, own: Mapping | None = None, name: str | None = None, partial: bool = False
) -> Chosen | list[Diagnostic]:
    """By the text of a config, or by that of the part of it that is named. `own` is used whatever the family."""
    fields = fields_of(source)
    if isinstance(fields, Fields) and name is not None:
        fields = part(fields, name)
    if isinstance(fields, list):
        return fields
    if own is not None:
        return Chosen(fields, own, partial=partial)
    family = fields.get((MODEL_TYPE,))
    if not isinstance(family, str):
        help = f"give {MODEL_TYPE}; {_alike(fields)}"
        return [error("E610", fields, (MODEL_TYPE,), f"the config has no {MODEL_TYPE}", help)]
    lacking = gaps().families.get(family, Lacking(gaps=[]))
    found = list(told(gaps(), fields, family, _way_on(fields, family, lacking)))
    own_way = family in families() or (lacking.like is not None and (partial or (lacking.like.whole and not found)))
    if found and not (partial and own_way):
        return found
    if not own_way:
        return [_unknown(fields, family, lacking.like)]
    return _read_by(fields, family, lacking, partial)


def _read_by(fields: Fields, family: str, lacking: Lacking, partial: bool) -> Chosen:
    """The fields of a family as its mapping, or the one that is like it, has them."""
    asked = asking(gaps(), fields, family)
    left = tuple(f"{gap.code}: {said(gap, fields)}" for gap in asked if not gap.imports)
    notes = tuple(f"{gap.code}: {said(gap, fields)}" for gap in asked if gap.imports)
    made, like = fields.copy(), lacking.like
    if family in families():
        _without(made, [gap for gap in asked if not gap.imports])
        return Chosen(made, known(family), family, partial, left, notes)
    assert like is not None
    _without(made, lacking.gaps)
    mapping = known(like.family)
    changed = {
        "spec": overlay(mapping.spec, like.spec),
        "require": overlay(mapping.require, like.require),
        "ignore": {**mapping.ignore, **like.ignore},
    }
    mapping = mapping.model_copy(update=changed)
    names = _as_theirs(made, fields, like, mapping)
    return Chosen(made, mapping, family, partial, (*left, *like.rest), notes, names)


def _without(fields: Fields, asked: list[Gap]) -> None:
    for name in dropped(asked):
        fields.pop(split(name))


def _as_theirs(made: Fields, given: Fields, like: Like, mapping: Mapping) -> dict[Path, tuple[Path, ...]]:
    """Put what the family calls otherwise under the names of the one that is like it; of what these are made."""
    names: dict[Path, tuple[Path, ...]] = {}
    put: list[tuple[Path, Any, tuple[Path, ...]]] = []
    for name, template in like.read.items():
        asked = [path for _, item in holes(template) for path in item.fields]
        try:
            value = _filled(template, given, mapping)
        except Unmapped:
            continue  # the field stays, and is told as one that the mapping does not name
        if value is not None:
            put.append((split(name), value, tuple(asked)))
        for path in asked:
            if path[0] not in mapping.defaults or path == split(name):  # else it is a field of theirs, too
                made.pop(path)
    for path, value, asked in put:
        made.put(path, value)
        made.was |= {path: asked[0]} if asked else {}
        names[path] = asked
    return names


def _filled(template: Any, fields: Fields, mapping: Mapping) -> Any:
    if isinstance(template, list):
        items = [_filled(item, fields, mapping) for item in cast(list[Any], template)]
        return None if None in items else items
    found = hole(template)
    return template if found is None else read(found, fields.get, context(common(), mapping.tables))


def heading(made: Chosen, more: list[Diagnostic]) -> str:
    """Comments on top of a spec: what it goes without, and what is to know of it."""
    lines = [f"note: {note}" for note in made.notes]
    left = [*made.left, *(f"{item.code}: {item.message}" for item in more)]
    if made.partial and left:
        like = "" if made.family in (None, made.mapping.family) else f", read as {made.mapping.family}"
        lines += [f"{made.family or made.mapping.family}{like}, without what specc cannot say:", *left]
    return "".join(f"# {_plain(line)}\n" for line in lines)


def _plain(text: str) -> str:
    """On one line, whatever a config holds."""
    return "".join(c if c.isprintable() else "?" for c in text)


def _parts(fields: Fields) -> str:
    """How one of several models is imported, if there are several."""
    names = [f"--part {name.removesuffix('_config')}" for name in part_names(fields)]
    return f"{' or '.join(names)} imports one of its models" if names else ""


def _way_on(fields: Fields, family: str, lacking: Lacking) -> str:
    """What can be done about a family that specc cannot say."""
    if parts := _parts(fields):
        return parts
    if family in families() or lacking.like is not None:
        like = f", read as {lacking.like.family}" if lacking.like and family not in families() else ""
        return f"--partial makes a spec of the rest{like}"
    return "no mapping is near enough for --partial to make a spec of the rest"


def _unknown(fields: Fields, family: str, like: Like | None) -> Diagnostic:
    near = get_close_matches(family, families(), 3, 0.6)
    parts = _parts(fields)
    ways = [
        *([parts] if parts else []),
        *([f"--partial reads it as {like.family}"] if like else []),
        *([f"nearest by name: {', '.join(near)}"] if near else []),
        _alike(fields),
        f"known are {', '.join(families())}",
    ]
    return error("E610", fields, (MODEL_TYPE,), f"there is no mapping for the family {family}", "; ".join(ways))


def _alike(fields: Fields) -> str:
    """Which mapping names most of the fields, and which it does not."""
    own = {key for key in fields.values if key not in common().ignore}
    ranked = sorted(_ranked(own))
    count, _, family = ranked[0]
    others = [name for more, _, name in ranked[1:3] if -more * 2 > len(own)]
    unlike = sorted(own - named(known(family)))
    but = f", not {_listed(unlike)}" if unlike and count else ""
    return f"{-count} of its {len(own)} fields are those of {family}{but}" + (
        f"; then come {' and '.join(others)}" if others else ""
    )


def _ranked(own: set[str]) -> Iterator[tuple[int, int, str]]:
    for family in families():
        names = named(known(family))
        yield -len(own & names), len(names - own), family


def _listed(names: list[str]) -> str:
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def named(mapping: Mapping) -> set[str]:
    """Top-level fields that the mapping names in holes, as required, ignored or older."""
    specs = [mapping.spec, *(variant.spec for variant in mapping.variants)]
    found = {path[0] for spec in specs for _, item in holes(spec) for path in item.fields}
    found |= {split(name)[0] for variant in mapping.variants for name in (*variant.when, *variant.require)}
    return found | {split(name)[0] for name in (*mapping.require, *mapping.ignore, *mapping.older)}
