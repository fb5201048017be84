"""A spec -> the config of a family: the holes of the mapping solved, and the config read back to see that it is so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from pydantic import TypeAdapter

from specc.components.base import Config
from specc.interop.fields import Fields, split, with_lists
from specc.interop.filling import Place, Solved, solve_for
from specc.interop.importing import Imported, imported
from specc.interop.library import common, families, known
from specc.interop.schema import Data, Mapping, Variant, spread, varied
from specc.interop.shorten import meaning
from specc.source import Diagnostic, Source, plain, span_of
from specc.spec import Spec, load
from specc.spec.blocks import written_blocks
from specc.spec.language import language
from specc.spec.report import Report

INNER = {("rope", "dim"): "head_dim"}
"""Defaults of keys inside a key of a component that are another key of it."""


@dataclass(frozen=True)
class Exported:
    """A config, and the mapping that made it."""

    config: Data
    mapping: Mapping

    @property
    def text(self) -> str:
        """As it is written to a file."""
        return json.dumps(self.config, indent=2) + "\n"


def export(spec: Spec, family: str | None = None, own: Mapping | None = None) -> Exported | list[Diagnostic]:
    """The config of a spec as one of that family; None: of the only one that it fits (E650 to E652)."""
    if own is not None:
        return exported(spec, own)
    if family is not None and family not in families():
        help = f"known are {', '.join(families())}"
        return [Diagnostic("E650", f"there is no mapping for the family {family}", None, help)]
    found: dict[str, Exported] = {}
    problems: dict[str, list[Diagnostic]] = {}
    for name in families() if family is None else (family,):
        made = exported(spec, known(name))
        if isinstance(made, Exported):
            found[name] = made
        else:
            problems[name] = made
    if len(found) == 1:
        return next(iter(found.values()))
    if family is not None:
        return problems[family]
    if found:
        message = f"{spec.file} can be a model of each of {', '.join(found)}"
        return [Diagnostic("E652", message, None, "choose with --family")]
    near = min(problems, key=lambda name: len(problems[name]))
    message = f"{spec.file} is a model of none of the families {', '.join(families())}; nearest is {near}"
    return [Diagnostic("E651", message, None, f"--family {near} says what differs"), *problems[near]]


def exported(spec: Spec, mapping: Mapping) -> Exported | list[Diagnostic]:
    """The config of a spec as one of that mapping: of the variant that reads back as the spec, or all that differs."""
    least: list[Diagnostic] | None = None
    for variant in (None, *mapping.variants):
        made = _exported(spec, mapping, variant)
        if isinstance(made, Exported):
            return made
        least = made if least is None or len(made) < len(least) else least
    assert least is not None
    return least


def _exported(spec: Spec, mapping: Mapping, variant: Variant | None) -> Exported | list[Diagnostic]:
    wanted = varied(mapping, variant)
    data = full(spec)
    usual = Fields(mapping.defaults)
    solved = Solved(common(), wanted.tables, usual.get)
    for name, value in (variant.when if variant else {}).items():
        solved.values.put(split(name), value)
    solve_for(spread(wanted.spec), data, solved)
    fixed = {split(name): value for name, value in wanted.require.items()}
    for path, value in fixed.items():
        solved.values.put(path, value)
    head = {"architectures": [mapping.architecture], "model_type": mapping.family}
    config = {**head, **_ordered(with_lists(solved.values.values), mapping)}
    found = [_error("E651", spec, place, f"{mapping.family}: {problem}") for place, problem in solved.problems]
    if found:
        return found
    again = imported(Fields(json.loads(json.dumps(config))), mapping, spec.model.name)
    if not isinstance(again, Imported):
        return [Diagnostic("E651", f"{mapping.family}: {item.message}", None, item.help) for item in again]
    read = load(Source("config.json", again.text))
    assert isinstance(read, Spec), read
    if meaning(read.model) == meaning(spec.model):
        return Exported(config, wanted)
    return list(_differences(spec, data, full(read), mapping.family))


def _ordered(values: Data, mapping: Mapping) -> Data:
    """In the order of the mapping's defaults."""
    known = [name for name in mapping.defaults if name in values]
    return {name: values[name] for name in (*known, *(name for name in values if name not in mapping.defaults))}


def _error(code: str, spec: Spec, place: Place, message: str) -> Diagnostic:
    return Diagnostic(code, message, None if spec.root is None else span_of(spec.root, place))


def _differences(spec: Spec, ours: Data, theirs: Data, family: str) -> Iterator[Diagnostic]:
    """By key, where the spec is not what its config says."""
    told = False
    a, b = dict(_leaves(ours, ())), dict(_leaves(theirs, ()))
    for place in dict.fromkeys((*a, *b)):
        if a.get(place) != b.get(place) and place not in (("name",), ("description",)) and place[0] != "layouts":
            where = ".".join(map(str, place))
            message = f"{where} = {_said(a.get(place))}, which {family} cannot say: there it is {_said(b.get(place))}"
            told = True
            yield _error("E651", spec, place, message)
    if not told:
        yield Diagnostic("E651", f"{spec.file} is written in another form than {family} has", None)


def _said(value: Any) -> str:
    return "absent" if value is None else json.dumps(value)


def _leaves(value: Any, at: Place) -> Iterator[tuple[Place, Any]]:
    if isinstance(value, dict):
        for key, inner in cast(Data, value).items():
            yield from _leaves(inner, (*at, key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in cast(list[Any], value)):
        for n, inner in enumerate(cast(list[Any], value)):
            yield from _leaves(inner, (*at, n))
    else:
        yield at, value


def full(spec: Spec) -> Data:
    """The spec's document with defaults filled in, and with blocks that are like others written out."""
    assert spec.root is not None, "a spec that was read"
    words = language(spec.model.tables)
    raw = cast(Data, plain(spec.root))
    raw = {key: value for key, value in raw.items() if key not in ("layout", "layouts")}
    document = words.document.model_validate(raw)
    named = written_blocks(document, cast(Data, raw.get("blocks", {})), Report(spec.root, words))
    lists = TypeAdapter(words.sublayers)
    made = document.model_dump(
        by_alias=True, exclude={"layout", "layouts", "blocks", "encoder", "decoder"}, warnings=False
    )
    made["embedding"] |= {"dropout": spec.model.embed.dropout}
    if spec.common is not None:
        made["norm"] |= {"bias": spec.common.norm.bias}
    blocks = {
        name: lists.dump_python(block.sublayers, mode="json", exclude_unset=True, warnings=False)
        for name, block in named.items()
    }
    roles = {block.name: stack.role for stack in spec.model.stacks for run in stack.runs for block in run.blocks}
    made["blocks"] = {name: _filled(block, spec, roles.get(name, "decoder")) for name, block in blocks.items()}
    for role in ("encoder", "decoder"):
        if raw.get(role) is not None:
            stack = cast(Data, raw[role])
            made[role] = {"d_model": _width(spec, role), **stack, "block": _filled(stack.get("block"), spec, role)}
    stacks = (made.get(role) or {} for role in ("encoder", "decoder"))
    for sublayers in (*made["blocks"].values(), *(stack.get("block") for stack in stacks)):
        for sublayer in sublayers or ():
            sublayer |= {key: made["residual"][key] for key in ("alpha", "beta") if sublayer.get(key) is None}
    return made


def _width(spec: Spec, role: str) -> int:
    """Of the stream of that stack."""
    return next((spec.model.width(stack) for stack in spec.model.stacks if stack.role == role), spec.model.d_model)


def _filled(value: Any, spec: Spec, role: str) -> Any:
    """Components with every default: those that they decide, too."""
    components = spec.model.tables.components
    if isinstance(value, list):
        return [_filled(item, spec, role) for item in cast(list[Any], value)]
    if not isinstance(value, dict):
        return value
    made: Data = {}
    for key, inner in cast(Data, value).items():
        if key in components and isinstance(inner, dict):
            component = components[key]
            config: Config = component.config.model_validate(inner)
            resolved = component.resolve(config, _width(spec, role), role)
            dumped = resolved.model_dump(by_alias=True, mode="json", warnings=False)
            for name, (value, _) in component.decided(resolved, role).items():
                dumped[name] = value if dumped.get(name) is None else dumped[name]
            for (holder, name), other in INNER.items():
                if isinstance(inside := dumped.get(holder), dict) and inside.get(name) is None:
                    inside[name] = dumped.get(other)
            made[key] = dumped
        else:
            made[key] = _filled(inner, spec, role)
    return made
