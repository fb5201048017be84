"""What may stand where in a document, read off the models: for messages that name the choices.

Places are those of pydantic: keys and numbers of items, with tags of alternatives between them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Annotated, Any, Literal, cast, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from specc.spec.synonyms import ELSEWHERE, SAID

Loc = tuple[str | int, ...]
WORDS = {bool: ("true", "false"), int: ("a whole number",), float: ("a number",), str: ("a text",), list: ("a list",)}
CLOSE = 0.75  # how much of two words must be the same for one to be a slip of the other, from 0 to 1
LONGEST = 100  # of a word that is compared with others; the time grows with the square


def keys(annotation: Any, loc: Loc) -> list[str]:
    """Keys of the mapping at that place of pydantic's, in order."""
    found = [option for option in _at(annotation, loc) if _is_model(option)]
    return list(dict.fromkeys(key for option in found for key in _fields(option)))


def values(annotation: Any, loc: Loc) -> list[str]:
    """Words that the value there may be."""
    return [str(word) for option in _at(annotation, loc) if get_origin(option) is Literal for word in get_args(option)]


def expected(annotation: Any, loc: Loc) -> str:
    """`a whole number or a mapping`: what the value there may be."""
    words: list[str] = []
    for option in _at(annotation, loc):
        if get_origin(option) is Literal:
            words += [str(word) for word in get_args(option)]
        elif option is not type(None):
            words += WORDS.get(get_origin(option) or option, ("a mapping",))
    return listed(list(dict.fromkeys(words)))


def alternatives(annotation: Any, loc: Loc) -> int:
    """How many mappings that have different keys may stand there."""
    return sum(map(_is_model, _at(annotation, loc)))


def tags(annotation: Any, loc: Loc) -> tuple[bool, ...]:
    """Which parts of the place pydantic put in to tell alternatives apart: no key of the document."""
    place, found = _root(annotation), list[bool]()
    for part in loc:
        found.append(part in place.tags)
        place = place.at(part)
    return tuple(found)


def kinds(annotation: Any, loc: Loc) -> list[str]:
    """What `kind` may be of a mapping there that has several."""
    return [tag for option in _at(annotation, loc) if _is_model(option) and (tag := _tag(option)) is not None]


def others(annotation: Any, loc: Loc) -> str:
    """`a mapping of every, save`: what may stand in the place of a word that is told apart from it by a tag."""
    if not loc or not tags(annotation, loc)[-1]:
        return ""
    words: list[str] = []
    for option in _at(annotation, loc[:-1]):
        if _is_model(option):
            words.append(f"a mapping of {', '.join(_fields(option))}")
        elif get_origin(option) is not Literal:
            words += WORDS[get_origin(option) or option]
    return listed(words)


def alike(word: str, known: Iterable[str], synonyms: Mapping[str, tuple[str, ...]]) -> list[str]:
    """The known word that was meant, if there is one that is close or that others call so."""
    known = list(known)
    plain = _plain(word)
    same = [other for other in known if plain == other.lower() or plain in synonyms.get(other, ())]
    if len(same) == 1 or plain in ELSEWHERE or plain in SAID:
        return same[:1] if len(same) == 1 else []
    number = _digits(plain)  # relu2 is no slip of relu
    from difflib import get_close_matches  # most specs have no slip

    return [other for other in get_close_matches(word[:LONGEST], known, 1, CLOSE) if _digits(other) == number]


def _plain(word: str) -> str:
    return word[:LONGEST].lower().replace("-", "_")


def _digits(word: str) -> str:
    return "".join(filter(str.isdigit, word))


def suggestion(word: str, known: Iterable[str], what: str, synonyms: Mapping[str, tuple[str, ...]]) -> str:
    """`did you mean heads? keys here are ...`"""
    known = list(known)
    close, told = alike(word, known, synonyms), SAID.get(_plain(word))
    hint = f"did you mean {close[0]}? " if close else ""
    hint += f"{told}; " if told else ""
    return f"{hint}{what} here are {', '.join(known)}" if known else f"there are no {what} here"


def number(value: Any, group: str = "") -> str:
    """As one writes it: 1 for 1.0, 1e-6 for 1e-06; `group` stands between thousands."""
    text = (
        f"{value:{group}g}"
        if isinstance(value, float)
        else f"{value:{group}}"
        if isinstance(value, int)
        else str(value)
    )
    return re.sub(r"e([-+])0?", lambda match: f"e{match[1].strip('+')}", text)


def listed(words: list[str]) -> str:
    """`a, b or c`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


@dataclass(eq=False)
class _Place:
    """Alternatives at a place, with their tags. There are as many as models have keys, however long a document is."""

    options: tuple[Any, ...]
    inside: dict[str | int, _Place] = field(default_factory=dict[str | int, "_Place"])

    @cached_property
    def keys(self) -> frozenset[str]:
        return frozenset(key for bare in map(_bare, self.options) if _is_model(bare) for key in _fields(bare))

    @cached_property
    def tags(self) -> frozenset[str | int]:
        """Those that are no keys."""
        return frozenset(tag for tag in map(_tag, self.options) if tag is not None) - self.keys

    def at(self, part: str | int) -> _Place:
        """What stands at a key, an item or a tag; all items are alike, and so are all keys that are free."""
        same = 0 if isinstance(part, int) else part if part in self.keys or part in self.tags else ""
        if same not in self.inside:
            self.inside[same] = _Place(tuple(found for option in self.options for found in _inside(option, part)))
        return self.inside[same]


@cache
def _root(annotation: Any) -> _Place:
    return _Place(tuple(_options(annotation)))


def _at(annotation: Any, loc: Loc) -> list[Any]:
    """Alternatives at a place."""
    place = _root(annotation)
    for part in loc:
        place = place.at(part)
    return [_bare(option) for option in place.options]


def _inside(option: Any, part: str | int) -> list[Any]:
    """Alternatives of what stands at a key, an item or a tag of one alternative."""
    bare = _bare(option)
    if _is_model(bare) and part in (fields := _fields(bare)):
        return _options(fields[part].annotation)
    if get_origin(bare) is list and isinstance(part, int):
        return _options(get_args(bare)[0])
    if get_origin(bare) is dict:
        return _options(get_args(bare)[1])
    return [option] if _tag(option) == part else []


def _options(annotation: Any) -> list[Any]:
    """The alternatives of an annotation, each with what it is annotated with."""
    if get_origin(annotation) is Annotated:
        return [annotation] if _tag(annotation) is not None else _options(get_args(annotation)[0])
    if get_origin(annotation) in (None, list, dict, Literal):
        return [annotation]
    return [option for inner in get_args(annotation) for option in _options(inner)]


def _bare(option: Any) -> Any:
    """Without what it is annotated with."""
    return _bare(get_args(option)[0]) if get_origin(option) is Annotated else option


def _tag(option: Any) -> str | None:
    """How pydantic tells the alternative from the others: its tag, or its `kind`."""
    if get_origin(option) is Annotated:
        return next((item.tag for item in get_args(option)[1:] if isinstance(item, Tag)), None)
    kind = _fields(option).get("kind") if _is_model(option) else None
    names = get_args(kind.annotation) if kind is not None else ()
    return names[0] if len(names) == 1 else None


def _is_model(option: Any) -> bool:
    return isinstance(option, type) and issubclass(option, BaseModel)


@cache
def _fields(model: Any) -> dict[str, FieldInfo]:
    return {field.alias or name: field for name, field in cast(type[BaseModel], model).model_fields.items()}
