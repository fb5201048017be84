"""Formulas of a document made numbers: names resolved, ranges kept, what is wrong told at its characters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, Tag
from pydantic.fields import FieldInfo

from specc.components.base import Arithmetic, Config
from specc.source import Path, shown
from specc.spec.arithmetic import FUNCTIONS, Fault, evaluate
from specc.spec.grammar import number
from specc.spec.report import Report

OUTSIDE: Mapping[str, tuple[str, Callable[[float, float], bool]]] = {
    "ge": ("at least", lambda value, bound: value < bound),
    "gt": ("above", lambda value, bound: value <= bound),
    "le": ("at most", lambda value, bound: value > bound),
    "lt": ("below", lambda value, bound: value >= bound),
}
"""By the limits of a number."""
C = TypeVar("C", bound=Config)


@dataclass
class Formulas:
    """Numbers of one place of a document, where these names stand for these values."""

    report: Report
    names: Mapping[str, float]
    by_layer: bool = False
    """Whether a formula read the number of its layer."""

    def number(self, doc: BaseModel, key: str, at: Path) -> float:
        """The number at a key of what stands at a place; 1 where it is none or out of range, which is told."""
        return self._value(getattr(doc, key), (*at, key), limits(type(doc), key))

    def resolved(self, config: C, place: Callable[[Path], Path], names: Mapping[str, float], path: Path = ()) -> C:
        """The config with numbers in place of all its formulas, and of mappings in it; more names are known there."""
        changes: dict[str, Any] = {}
        for key in type(config).model_fields:
            value = getattr(config, key)
            if isinstance(value, Config):
                changes[key] = self.resolved(value, place, names, (*path, key))
            elif isinstance(value, str) and (within := limits(type(config), key)) is not None:
                own = Formulas(self.report, {**self.names, **names})
                changes[key] = own._value(value, place((*path, key)), within)
                self.by_layer |= own.by_layer
        changes = {key: value for key, value in changes.items() if value is not getattr(config, key)}
        return config.model_copy(update=changes) if changes else config

    def _value(self, written: float | str, at: Path, within: Mapping[str, float] | None) -> float:
        if not isinstance(written, str):
            return float(written)
        found = evaluate(written, self.names)
        if isinstance(found, Fault):
            self._tell(written, at, found)
            return 1.0
        self.by_layer |= "layer" in found.reads
        for limit, bound in (within or {}).items():
            words, outside = OUTSIDE[limit]
            if outside(found.value, bound):
                where = f" in layer {self.names['layer']:g}" if "layer" in found.reads else ""
                message = f"{at[-1]} must be {words} {number(float(bound), ',')}, not {number(found.value)}{where}"
                self.report.add("E204", at, message)
                self.report.broken(at)
                return 1.0
        return found.value

    def _tell(self, written: str, at: Path, fault: Fault) -> None:
        word = written[fault.start : fault.end]
        code, message, help = "E260", f"{shown(written)} is no arithmetic: {fault.message}", None
        if fault.kind == "form":
            help = f"numbers, names, + - * / ** ( ), {', '.join(FUNCTIONS)}"
        elif fault.kind == "value":
            code, message = "E262", f"{word} {fault.message}"
            if "layer" in word and "layer" in self.names:
                message, help = f"{message} in layer {self.names['layer']:g}", "layer counts from 0"
        else:
            code, message = "E261", fault.message
            known = FUNCTIONS if fault.kind == "function" else self.names
            help = self.report.suggestion(word, known, f"{fault.kind}s")
        self.report.add(code, at, message, help, part=(fault.start, fault.end))
        self.report.broken(at)


@cache
def limits(model: type[BaseModel], key: str) -> Mapping[str, float] | None:
    """The range of a number at a key where arithmetic may stand, None elsewhere."""
    options = _options(model.model_fields[key].annotation)
    if Arithmetic not in options:
        return None
    metadata = [item for option in options for item in get_args(option)[1:] if option != Arithmetic]
    bounds = [bound for item in metadata if isinstance(item, FieldInfo) for bound in item.metadata]
    return {name: getattr(bound, name) for name in OUTSIDE for bound in bounds if hasattr(bound, name)}


def _options(annotation: Any) -> list[Any]:
    """The alternatives of a value that have a tag."""
    tagged = get_origin(annotation) is Annotated and any(isinstance(item, Tag) for item in get_args(annotation))
    return [annotation] if tagged else [option for inner in get_args(annotation) for option in _options(inner)]
