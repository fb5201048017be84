"""Whether each global name of a parameter stands for one parameter."""

from __future__ import annotations

from collections.abc import Iterator

from specc.ir.graph import Graph
from specc.ir.op import Layer, Param, Path, in_model
from specc.ir.repeat import layer_scope

Template = tuple[str, ...]
"""A path with * for the number of a layer."""


def template(path: Path) -> Template:
    """The path without the number of its layer: the same for all layers of a block."""
    return tuple("*" if isinstance(part, Layer) else str(part) for part in path)


def clashes(graph: Graph) -> Iterator[tuple[str, str]]:
    """(op, what is wrong), for every parameter that is not what its name stands for elsewhere.

    Blocks run different layers, so parameters of two blocks cannot meet where each is of its own block.
    """
    known: dict[Path, Param] = {}
    first: dict[Template, str] = {}
    for op in graph.ops:
        for param in op.params:
            path = template(param.path)
            name = ".".join(path)
            if known.setdefault(param.path, param) != param:
                yield op.id, f"{name} has another shape, role or init elsewhere"
            if len([other for other in op.params if other.path == param.path]) != 1:
                yield op.id, f"uses {name} twice"
            if not all(isinstance(axis.size, int) for axis in param.axes):
                yield op.id, f"{name} has an axis of unknown size"
            layer = layer_scope(param.path)
            if layer is not None and layer != layer_scope(in_model(op.scope)):
                yield op.id, f"{name} belongs to another layer"
            first.setdefault(path, op.id)
    modules = {path[:depth] for path in first for depth in range(1, len(path))}
    for path, op_id in first.items():
        if path in modules:
            yield op_id, f"{'.'.join(path)} is a parameter here, a module elsewhere"
