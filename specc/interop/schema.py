"""The shape of a mapping: how a family's config is written as a spec, and its tensors as parameters."""

from __future__ import annotations

from collections.abc import Mapping as AnyMapping
from typing import Annotated, Any, Literal, cast

from pydantic import Field, Tag

from specc.components.base import Config, by_kind

Texts = dict[str, str]
Data = dict[str, Any]


class Stored(Config):
    """Where a parameter is in files whose tensors are not those of the class."""

    hf: str
    """Name of the tensor; with `{experts}` there is one for each index of that axis of the parameter."""
    axes: str | None = None
    """As a `Weight` has them."""


class Packed(Stored):
    """A tensor in files of few bits a number, which are only read; `axes` are those of its numbers in bfloat16."""

    kind: Literal["mxfp4"]
    """Blocks of 32 numbers of 4 bits, the first of two in a byte being its lower half, with a power of two each."""
    blocks: str
    """How the name of the tensor of bytes ends."""
    scales: str
    """How that of the powers ends."""


class Weight(Config):
    """Where a parameter is in the files, where its name does not say it all."""

    hf: Annotated[Annotated[str, Tag("text")] | Annotated[list[str], Tag("list")], by_kind]
    """Name of the tensor; of several, all hold the same and the first is written."""
    hub: Annotated[Annotated[str, Tag("text")] | Annotated[Stored, Tag("mapping")], by_kind] | None = None
    """Where it is in files as the hub has them, whose tensors the class renames, stacks or joins as it reads them."""
    packed: Packed | None = None
    """Where it is in files of few bits a number."""
    axes: str | None = None
    """Its axes, outermost first, in the words of specc's; `->` those of the parameter."""
    add: float | None = None
    """What is added to the tensor to make the parameter."""
    flip: str | None = None
    """The axis of `axes` that runs the other way."""


Place = Annotated[
    Annotated[str, Tag("text")] | Annotated[list[str], Tag("list")] | Annotated[Weight, Tag("mapping")], by_kind
]


class Variant(Config):
    """What differs where fields have these values."""

    when: Data
    spec: Annotated[Data, Field(default_factory=dict)]
    tables: Annotated[dict[str, Data], Field(default_factory=dict)]
    weights: Annotated[dict[str, Place | None], Field(default_factory=dict)]
    require: Annotated[Data, Field(default_factory=dict)]
    ignore: Annotated[Texts, Field(default_factory=dict)]


class Mapping(Config):
    """One family."""

    map: Literal[1]
    family: str
    """Its model_type."""
    architecture: Annotated[str, Field(alias="class")]
    """The class that reads the files."""
    spec: Data
    """The spec that is made, with holes: `$field`, `$a * $b`, `$field | function`."""
    defaults: Annotated[Data, Field(default_factory=dict)]
    """What the class takes where the config says nothing; a text with $ is made of other fields."""
    older: Annotated[Texts, Field(default_factory=dict)]
    """Fields of older files, and where their values stand today."""
    tables: Annotated[dict[str, Data], Field(default_factory=dict)]
    """Functions of holes: value of the field -> value in the spec."""
    require: Annotated[Data, Field(default_factory=dict)]
    """Fields that must have this value."""
    ignore: Annotated[Texts, Field(default_factory=dict)]
    """Fields that do not matter, and why."""
    variants: Annotated[list[Variant], Field(alias="if", default_factory=list)]
    """The first whose fields have these values changes the rest."""
    weights: dict[str, Place]
    """Parameter -> tensor."""
    prefix: str | None = None
    """What begins the names of the class, which some files leave out."""
    hub_prefix: str | None = None
    """What begins them in files as the hub has them, where that is something else."""
    drop: Annotated[Texts, Field(default_factory=dict)]
    """Tensors of the files that are no parameters, and why."""
    zeros: Annotated[Texts, Field(default_factory=dict)]
    """Tensors that must be zero, and why they have no place."""


class Common(Config):
    """What all families share."""

    map: Literal[1]
    activations: dict[str, list[str]]
    """By the word of the language, the names of others; the first is written."""
    scaling: dict[str, Data | None]
    """By rope_type, the scaling of a rope, with holes for the fields beside it."""
    ignore: Texts
    """Fields that any config may have."""


def overlay(base: Data, change: AnyMapping[str, Any]) -> Data:
    """`base` with what `change` says; null removes, lists are replaced."""
    made = dict(base)
    for key, value in change.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = overlay(cast(Data, made[key]), cast(Data, value))
        else:
            made[key] = value
    return made


def spread(spec: Data) -> Data:
    """The spec with blocks that are like others written out, as far as `with` changes the first of a kind."""
    blocks: Data = spec.get("blocks", {})
    made = dict(blocks)
    for name, block in blocks.items():
        if isinstance(block, dict):
            change = cast(dict[str, Data], block["with"])
            made[name] = [_changed(item, change) for item in cast(list[Data], made[block["like"]])]
    return {**spec, "blocks": made} if blocks else spec


def _changed(sublayer: Data, change: dict[str, Data]) -> Data:
    return {
        key: overlay(value, change[key])
        if key in change
        else [_changed(part, change) for part in cast(list[Data], value)]
        if key == "parallel"
        else value
        for key, value in sublayer.items()
    }


def varied(mapping: Mapping, variant: Variant | None) -> Mapping:
    """The mapping as a variant changes it."""
    if variant is None:
        return mapping
    changed = {
        "spec": overlay(mapping.spec, variant.spec),
        "tables": overlay(mapping.tables, variant.tables),
        "weights": overlay(dict(mapping.weights), variant.weights),
        "require": overlay(mapping.require, variant.require),
        "ignore": {**mapping.ignore, **variant.ignore},
    }
    return mapping.model_copy(update={**changed, "variants": []})


def as_on_hub(mapping: Mapping) -> Mapping:
    """The mapping of files as the hub has them."""
    made: dict[str, Place] = {}
    for name, place in mapping.weights.items():
        hub = place.hub if isinstance(place, Weight) else None
        stored = Stored(hf=hub) if isinstance(hub, str) else hub
        if stored is not None:
            assert isinstance(place, Weight)
            place = place.model_copy(update={"hf": stored.hf, "axes": stored.axes, "hub": None})
        made[name] = _begun(place, mapping.prefix, mapping.hub_prefix)
    return mapping.model_copy(update={"weights": made, "prefix": mapping.hub_prefix or mapping.prefix})


def as_packed(mapping: Mapping) -> Mapping:
    """The mapping of files of few bits a number."""
    made = {
        name: place.model_copy(update={"hf": place.packed.hf, "axes": place.packed.axes})
        if isinstance(place, Weight) and place.packed is not None
        else place
        for name, place in mapping.weights.items()
    }
    return mapping.model_copy(update={"weights": made})


def _begun(place: Place, old: str | None, new: str | None) -> Place:
    """With names that begin otherwise."""
    if old is None or new is None:
        return place
    if isinstance(place, Weight):
        return place.model_copy(update={"hf": _begun(place.hf, old, new)})
    if isinstance(place, str):
        return f"{new}{place.removeprefix(old)}" if place.startswith(old) else place
    return [f"{new}{name.removeprefix(old)}" if name.startswith(old) else name for name in place]
