"""Parameters of a graph under their global names, and whether each name stands for one parameter."""

from __future__ import annotations

from collections.abc import Iterator

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Param, Path
from specc.ir.repeat import layer_of

Template = tuple[str, ...]
"""A path with * for the number of a layer."""


def template(path: Path) -> Template:
    """The path without the number of its layer: the same for all layers of a block."""
    return tuple("*" if isinstance(part, Layer) else str(part) for part in path)


def occurrences(graph: Graph) -> Iterator[tuple[Op, Param, range | None]]:
    """Every use of a parameter, with the numbers of the layers that have one each; None outside layers."""
    for op in graph.ops:
        repeat = graph.repeat_of(op.scope) if op.params else None
        for param in op.params:
            layer = layer_of(param.path)
            yield op, param, None if layer is None or repeat is None else repeat.layers(layer.offset)


def clashes(graph: Graph) -> Iterator[tuple[str, str]]:
    """(op, what is wrong), for every parameter that is not what its name stands for elsewhere."""
    known: dict[Path, Param] = {}
    spans: dict[Template, list[tuple[Path, range]]] = {}
    first: dict[Template, str] = {}
    for op, param, layers in occurrences(graph):
        path = template(param.path)
        name = ".".join(path)
        if known.setdefault(param.path, param) != param:
            yield op.id, f"{name} has another shape, role or init elsewhere"
        if len([other for other in op.params if other.path == param.path]) != 1:
            yield op.id, f"uses {name} twice"
        if not all(isinstance(axis.size, int) for axis in param.axes):
            yield op.id, f"{name} has an axis of unknown size"
        layer = layer_of(param.path)
        if layer is not None and layer != layer_of(op.scope):
            yield op.id, f"{name} belongs to another layer"
        span = layers or range(1)
        for other, taken in spans.get(path, []):
            if other != param.path and _meet(span, taken):
                yield op.id, f"{name} is another parameter of the same layer elsewhere"
        spans.setdefault(path, []).append((param.path, span))
        first.setdefault(path, op.id)
    modules = {path[:depth] for path in first for depth in range(1, len(path))}
    for path, op_id in first.items():
        if path in modules:
            yield op_id, f"{'.'.join(path)} is a parameter here, a module elsewhere"


def _meet(a: range, b: range) -> bool:
    """Whether both have a number in common; over one period of both that shows."""
    start, stop = max(a.start, b.start), min(a.stop, b.stop)
    first = start + (a.start - start) % a.step
    return any(number in b for number in range(first, stop, a.step)[: b.step])
