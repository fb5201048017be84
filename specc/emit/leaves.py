"""How the constructor of a scope makes its leaf modules."""

from __future__ import annotations

from functools import lru_cache

from specc.emit.leaf import Leaf, leaves, options
from specc.emit.leaf_class import mesh_argument
from specc.emit.parts import Hole, Part
from specc.ir.graph import Graph
from specc.ir.op import Op, dotted


def constructor(graph: Graph, op: Op, n: int, depth: int) -> tuple[Part, ...]:
    """The expression that makes the module of parameter `n`, which stands `depth` below the root."""
    param = op.params[n]
    if len(param.path) != depth + 2:
        raise ValueError(f"{op.id}: {dotted(param.path)} is not a parameter of a leaf module")
    leaf = leaves(graph)[param.path[:-1]]
    key = dotted(param.path[:-1])
    return tuple(
        [part._replace(key=f"{key}{part.key}") if isinstance(part, Hole) else part for part in _made(graph, leaf)]
    )


def _made(graph: Graph, leaf: Leaf) -> tuple[Part, ...]:
    """The expression for any module that is such a leaf."""
    known = _known(graph)
    if leaf not in known:
        values: list[tuple[str, object]] = [*leaf.sizes, *leaf.values]
        parts: list[Part] = [f"{'' if leaf.own else 'nn.'}{leaf.cls}("]
        for number, (name, value) in enumerate(values):
            parts += [", "] * bool(number) + [Hole(f".{name}", name, repr(value))]
        parts += [f"{', ' * bool(values)}{mesh_argument(leaf.axes)}"] * bool(leaf.axes)
        known[leaf] = (*parts, *_options(graph, leaf), ")")
    return known[leaf]


@lru_cache(maxsize=4)
def _known(_: Graph) -> dict[Leaf, tuple[Part, ...]]:
    """By the leaf: most modules are like another."""
    return {}


def _options(graph: Graph, leaf: Leaf) -> list[Part]:
    """Keyword arguments, left out where they have their default."""
    if not leaf.own:
        optional = leaf.form.torch[1:]
        return [Hole(f".{name}", name, repr(leaf.has(name)), f", {name}=", "", "True") for name in optional]
    chosen = options(graph)[leaf.cls]
    values = {name: leaf.has(name) for name in leaf.form.params} | {"partial_grads": leaf.partial}
    return [Hole(f".{name}", name, repr(values[name]), f", {name}=", "", "False") for name in chosen]
