"""What the language does not have, by the fields of a family's config that ask for it: the form of `gaps.yaml`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import Field

from specc.components.base import Config
from specc.interop.fields import MODEL_TYPE, Fields, Path, error, part_names, same, shown, split
from specc.interop.schema import Data, Texts
from specc.source import Diagnostic


class Reason(Config):
    """What a code stands for."""

    what: str
    why: str
    """What of the language is in the way."""
    component: str
    """Whether a component of one's own can bring it."""


class Gap(Config):
    """Something that a model of the family does and specc cannot say; always, or where a field asks for it."""

    code: str
    says: str
    """What the family does; {} is the field's value."""
    field: str | None = None
    """The field that asks for it. Without it, or with null, it is `default`; without a default nothing is asked."""
    default: Any = None
    but: Annotated[list[Any], Field(default_factory=list)]
    """Values that do not ask for it; a list asks where one of its items does."""
    only: list[Any] | None = None
    """The only values that do."""
    drop: Annotated[list[str], Field(default_factory=list)]
    """Fields that say more of it."""
    imports: bool = False
    """The model imports all the same, and is told of it."""


class Like(Config):
    """The family whose mapping reads the rest of a config, and what it reads otherwise."""

    family: str
    read: Annotated[Data, Field(default_factory=dict)]
    """Fields of that family, made of those of this one."""
    spec: Annotated[Data, Field(default_factory=dict)]
    require: Annotated[Data, Field(default_factory=dict)]
    ignore: Annotated[Texts, Field(default_factory=dict)]
    """As in a mapping."""
    rest: Annotated[list[str], Field(default_factory=list)]
    """What the family does, too, that the mapping does not say."""
    whole: bool = False
    """Where nothing is in the way, this is the mapping of the family."""


class Lacking(Config):
    """A family with something that the language does not have."""

    gaps: list[Gap]
    like: Like | None = None


class Gaps(Config):
    """The file."""

    map: Literal[1]
    reasons: dict[str, Reason]
    families: dict[str, Lacking]


def asking(gaps: Gaps, fields: Fields, family: str) -> list[Gap]:
    """The gaps of a family that a config has."""
    known = gaps.families.get(family)
    return [gap for gap in known.gaps if _asks(gap, fields)] if known else []


def _asks(gap: Gap, fields: Fields) -> bool:
    if gap.field is None:
        return True
    value = _value(gap, fields)
    items: list[Any] = value if isinstance(value, list) else [] if value is None else [value]
    if gap.only is not None:
        return any(same(item, one) for one in gap.only for item in items)
    return not all(any(same(item, one) for one in gap.but) for item in items)


def _value(gap: Gap, fields: Fields) -> Any:
    assert gap.field is not None
    value = fields.get(split(gap.field))
    return gap.default if value is None else value


def said(gap: Gap, fields: Fields) -> str:
    """What the family does, with the field that says so."""
    if gap.field is None:
        return gap.says
    value = shown(_value(gap, fields))
    return f"{gap.says.replace('{}', value.removeprefix(' = '))} ({gap.field}{value})"


def told(gaps: Gaps, fields: Fields, family: str, help: str, at: Path = ()) -> Iterator[Diagnostic]:
    """Every gap of a config and of the parts in it that keeps it from being a spec. `at` is where the part stands."""
    inner = fields.within(at)
    for gap in asking(gaps, inner, family):
        if not gap.imports:
            path = split(gap.field) if gap.field and inner.get(split(gap.field)) is not None else (MODEL_TYPE,)
            message = f"{family} {said(gap, inner)}, which specc cannot say"
            yield error(gap.code, fields, (*at, *path), message, f"{gaps.reasons[gap.code].why}; {help}")
    for name in part_names(inner):
        yield from told(gaps, fields, inner.values[name][MODEL_TYPE], help, (*at, name))


def dropped(gaps: list[Gap]) -> list[str]:
    """Fields that the mapping need not name."""
    own = [gap.field for gap in gaps if gap.field is not None and not gap.imports]
    return [*own, *(name for gap in gaps for name in gap.drop)]


def part(fields: Fields, name: str) -> Fields | list[Diagnostic]:
    """The fields of a tower, `text_config` for text, or what parts there are (E607)."""
    for known in (f"{name}_config", name):
        if known in part_names(fields):
            return fields.within((known,))
    names = ", ".join(one.removesuffix("_config") for one in part_names(fields))
    help = f"it has {names}" if names else "it is of one model"
    return [error("E607", fields, (), f"the config has no part {name}", help)]
