"""The shape of a value on a rank, for people."""

from __future__ import annotations

from functools import lru_cache

from specc.ir.graph import Graph
from specc.ir.op import Ref


def shape(graph: Graph, ref: Ref, axes: dict[str, str]) -> str:
    """`[batch, seq/tp, d_model]`, axes renamed by `axes`; data axes are left out, every tensor is local to them."""
    return _shape(graph, ref, tuple(axes.items()))


@lru_cache(maxsize=1024)
def _shape(graph: Graph, ref: Ref, renamed: tuple[tuple[str, str], ...]) -> str:
    """Asked of one value by each line that reads it."""
    axes = dict(renamed)
    type = graph.type(ref)
    spmd = graph.spmd(ref)
    model = graph.groups.model
    words: list[str] = []
    for axis in type.axes:
        by = "*".join(name for name in spmd.shards(axis) if name in model)
        first, star, rest = axis.name.partition("*")
        first = axes.get(first, first)
        words.append(f"{first}{f'/{by}' if by else ''}{star}{rest}")
    partial = [name for name in model if spmd.at(name).kind == "P"]
    return f"[{', '.join(words)}]{f' partial over {partial[0]}' if partial else ''}"
