"""Repeats unrolled: which block each layer runs, and the parameters of all layers by their global names."""

from __future__ import annotations

from collections.abc import Iterator

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Param, Shared, dotted
from specc.ir.tree import Call, Loop, tree


def unrolled(loop: Loop) -> Iterator[tuple[int, int]]:
    """(layer, index in loop.blocks) in the order they run; blocks that a stage does not run may be absent."""
    period = loop.repeat.number("period")
    at = {part.offset: index for index, block in enumerate(loop.blocks) if isinstance(part := block.path[-1], Layer)}
    for layer in range(loop.start, loop.start + loop.n):
        yield layer, at[layer % period]


def parameters(graph: Graph) -> dict[str, Param]:
    """Every parameter by its global name, in op order of first use; those that layers of a stack share come before its
    others. Raises ValueError where uses disagree."""
    found: dict[str, Param] = {}
    _collect(tree(graph), None, found)
    first = {part: n for n, part in reversed([*enumerate(param.path[0] for param in found.values())])}

    def place(item: tuple[str, Param]) -> tuple[int, bool]:
        path = item[1].path
        return first[path[0]], not any(isinstance(part, Shared) for part in path)

    shared = any(isinstance(part, Shared) for param in found.values() for part in param.path)
    return dict(sorted(found.items(), key=place)) if shared else found


def _collect(call: Call, layer: int | None, found: dict[str, Param]) -> None:
    for item in call.items:
        if isinstance(item, Op):
            for param in item.params:
                name = dotted(param.path, layer)
                if found.setdefault(name, param) != param:
                    raise ValueError(f"{item.id}: {name} is {param} here, but {found[name]} before")
        elif isinstance(item, Loop):
            for number, index in unrolled(item):
                _collect(item.blocks[index], number, found)
        else:
            _collect(item, layer, found)
