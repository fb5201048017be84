"""How the constructor of a scope makes its leaf modules."""

from __future__ import annotations

from specc.emit.leaf import Leaf, leaves, options
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
    values: list[tuple[str, object]] = [*leaf.sizes, *([("eps", leaf.eps)] if leaf.eps is not None else [])]
    parts: list[Part] = [f"{'' if leaf.own else 'nn.'}{leaf.cls}("]
    for number, (name, value) in enumerate(values):
        parts += [", "] * bool(number) + [Hole(f"{key}.{name}", name, repr(value))]
    parts += [f", {axis}" for axis in graph.model_axes]
    return (*parts, *_options(graph, leaf, key), ")")


def _options(graph: Graph, leaf: Leaf, key: str) -> list[Part]:
    """Keyword arguments, left out where they have their default."""
    if not leaf.own:
        has = leaf.cls in ("Linear", "LayerNorm")
        return [Hole(f"{key}.bias", "bias", repr(leaf.bias), ", bias=", "", "True")] if has else []
    chosen = options(graph)[leaf.cls]
    values = {"bias": leaf.bias, "partial_grads": leaf.partial_grads}
    return [Hole(f"{key}.{name}", name, repr(values[name]), f", {name}=", "", "False") for name in chosen]
