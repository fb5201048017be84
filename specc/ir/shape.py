"""The shape of a value on a rank, for people."""

from __future__ import annotations

from specc.ir.graph import Graph
from specc.ir.op import Ref
from specc.ir.types import TOKEN_AXES, Spmd, TensorType


def shape(graph: Graph, ref: Ref, axes: tuple[tuple[str, str], ...]) -> str:
    """`[batch, seq/tp, d_model]`, axes renamed by `axes`; data axes show where they cut rows, samples are local."""
    type, spmd = graph.type(ref), graph.spmd(ref)
    key = (id(type), id(spmd), axes)
    found = graph.shown.get(key)
    if found is None:
        found = graph.shown[key] = _shape(graph, type, spmd, dict(axes))
    return found


def _shape(graph: Graph, type: TensorType, spmd: Spmd, axes: dict[str, str]) -> str:
    model = graph.groups.model
    words: list[str] = []
    for *packed, axis in type.dims:
        split = [(name, held.name) for held in (*packed, axis) for name in spmd.shards(held)]
        shown = {axis.name: (*TOKEN_AXES, *axis.heads) for axis in graph.mesh}
        by = "*".join(name for name, held in split if name in model or held in shown[name])
        by = f"({by})" if "*" in by else by
        first, star, rest = axis.name.partition("*")
        first = axes.get(first, first)
        words.append(f"{first}{f'/{by}' if by else ''}{star}{rest}")
    partial = [name for name in model if spmd.at(name).kind == "P"]
    return f"[{', '.join(words)}]{f' partial over {partial[0]}' if partial else ''}"
