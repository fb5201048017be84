"""A spec in another size: its structure, with d_model, layers and what grows with d_model scaled."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import floor, log
from typing import Any, NamedTuple

from specc.components.base import Component
from specc.cost.shape import RANKS, WITHIN, widths
from specc.source import Diagnostic, Node, Source, Span, find, span_of
from specc.spec import Model, Spec, load

STACKS = ("encoder", "decoder")
WIDE, TILE = 1024, 128
"""Sizes from which a scaled one is a multiple of so many features; below, of RANKS."""
TRIED = 8
"""Widths for which layers are fitted: those nearest to what the count is for."""
LAYOUTS = f"layouts:\n  one: {{}}\n  node: {{tp: {RANKS}}}\n"
Edit = tuple[Span, int | str]


class Resized(NamedTuple):
    """The text of a spec, and its parameters."""

    text: str
    parameters: int


@dataclass(frozen=True)
class Part:
    """A mapping with values of a component: its config, or what `with` changes. `span` is that of its key."""

    component: Component[Any]
    node: Node
    span: Span


Make = Callable[[int, float], Resized | None]
"""With that d_model, and so many times the layers; None where that breaks a rule."""


def resized(
    spec: Spec, source: Source, parameters: float, count: Callable[[Model], int], name: str, vocab: int | None = None
) -> Resized | list[Diagnostic]:
    """The spec of a source with about so many parameters, by `count`, under another name; or why there is none.

    The ratio of d_model to layers stays, as nearly as the count allows. A spec without layouts gets one of tp = 8, and
    what that does not divide is no size.
    """
    root, model = spec.root, spec.model
    assert root is not None, "it was read from a source"
    parts = list(_parts(root, model.tables.components))
    fixed = [part for part in parts if not part.component.grows]
    if fixed:
        message = "{} does not say which of its sizes grow with d_model"
        return [Diagnostic("E711", message.format(part.component.key), part.span) for part in fixed]

    broken: list[str] = []

    def make(d_model: int, deeper: float) -> Resized | None:
        edits = [*_frame(root, model.d_model, d_model, deeper), *_sizes(parts, model.d_model, d_model)]
        edits += [(span_of(root, ("name",)), name), *([(span_of(root, ("vocab",)), vocab)] if vocab else [])]
        text = _edited(source.text, root.span.start, edits)
        text += "" if {"layout", "layouts"} & set(root.keys) else LAYOUTS
        found = load(Source(source.name, text), model.tables)
        if isinstance(found, Spec):
            return Resized(text, count(found.model))
        broken.append(found[0].message)
        return None

    near = model.d_model * (parameters / count(model)) ** (1 / 3)
    found: list[tuple[float, Resized]] = []
    for width in _nearest(near):
        first = make(width, width / model.d_model)
        if first is not None:  # embeddings do not grow as layers do
            near = width * (parameters / first.parameters) ** (1 / 3)
            found = [made for width in _nearest(near) if (made := _fitted(make, width, model.d_model, parameters))]
            break
    if not found:
        message = f"no size of it that {RANKS} ranks can share has so many parameters, give or take {WITHIN:.0%}"
        help = f"the nearest has {broken[0]}" if broken else "take another number of parameters"
        return [Diagnostic("E712", message, span_of(root, ("d_model",)), help)]
    return min(found, key=lambda pair: pair[0])[1]


def _nearest(width: float) -> list[int]:
    return sorted(widths(), key=lambda other: abs(log(other / width)))[:TRIED]


def _fitted(make: Make, width: int, old: int, parameters: float) -> tuple[float, Resized] | None:
    """As many layers as come near, and how far their number is from where the ratio to d_model stays."""
    ratio = width / old
    once, twice = make(width, ratio), make(width, 2 * ratio)
    if once is None or twice is None:
        return None
    more = twice.parameters - once.parameters  # 0 where layers share theirs
    deeper = ratio * (1 + (parameters - once.parameters) / more) if more else ratio
    made = make(width, deeper) if deeper > 0 else None
    if made is None or abs(made.parameters - parameters) > WITHIN * parameters:
        return None
    return abs(log(deeper / ratio)), made


def _parts(node: Node, known: Mapping[str, Component[Any]]) -> Iterator[Part]:
    """Components of a document; in what `with` changes, `ffn2` is an ffn."""
    if isinstance(node.value, dict):
        for key, inner in node.value.items():
            component = known.get(key) or known.get(key.rstrip("0123456789"))
            if component is not None and isinstance(inner.value, dict):
                yield Part(component, inner, node.keys[key])
            else:
                yield from _parts(inner, known)
    elif isinstance(node.value, list):
        for item in node.value:
            yield from _parts(item, known)


def _frame(root: Node, old: int, d_model: int, deeper: float) -> Iterator[Edit]:
    """Of the document and its stacks."""
    yield span_of(root, ("d_model",)), d_model
    for stack in STACKS:
        for span, size in _stated(root, (stack, "d_model")):
            yield span, _multiple(size * d_model / old, TILE)
        for span, count in _stated(root, (stack, "layers")):
            yield span, max(1, floor(count * deeper + 0.5))


def _sizes(parts: list[Part], old: int, d_model: int) -> Iterator[Edit]:
    """Of components. Heads whose width follows from their number divide d_model, and counts after them divide that."""
    for part in parts:
        heads: tuple[int, int] | None = None  # before and after
        for key in part.component.grows:
            for span, size in _stated(part.node, tuple(key.split("."))):
                exact = size * d_model / old
                if not key.endswith("heads"):
                    yield span, _multiple(exact, TILE if size >= WIDE else RANKS)
                elif heads is None:
                    follows = find(part.node, ("head_dim",)) is None
                    heads = size, _divisor(d_model, exact) if follows else _multiple(exact, RANKS)
                    yield span, heads[1]
                else:
                    yield span, _divisor(heads[1], size * heads[1] / heads[0])


def _stated(node: Node, path: tuple[str, ...]) -> Iterator[tuple[Span, int]]:
    found = find(node, path)
    if found is not None and isinstance(found.value, int) and not isinstance(found.value, bool):
        yield found.span, found.value


def _multiple(exact: float, step: int) -> int:
    return step * max(1, floor(exact / step + 0.5))


def _divisor(of: int, exact: float) -> int:
    """The multiple of RANKS nearest to a number that divides another, which is one itself."""
    return min((n for n in range(RANKS, of + 1, RANKS) if of % n == 0), key=lambda n: abs(log(n / exact)))


def _edited(text: str, start: int, edits: list[Edit]) -> str:
    """From there on, with other values; what stands before is about the spec as it was."""
    for span, value in sorted(edits, key=lambda edit: edit[0].start, reverse=True):
        text = f"{text[: span.start]}{value}{text[span.end :]}"
    return f"{text[start:].rstrip()}\n"
