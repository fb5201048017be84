"""What a rank is fed of a batch: rows of a microbatch, and tokens of each."""

from __future__ import annotations

from math import lcm, prod

from specc.ir.graph import Graph
from specc.ir.types import TOKEN_AXES, MeshAxis
from specc.source import Diagnostic, plural, span_of
from specc.spec.core import Layout, Spec


def fed(spec: Spec, layout: Layout, graph: Graph, batch: int, seq: int | None = None) -> dict[str, int] | Diagnostic:
    """Sizes of one rank's microbatch by the names that the graph has for them, or what does not divide.

    `batch`: sequences of a step, over all ranks and microbatches; `seq`: tokens of each, as many as the model takes
    unless given. Encoder and decoder read as many.
    """
    most = spec.model.max_seq
    length = most if seq is None else seq
    if length > most:
        message = f"sequences of {length} tokens, and max_seq is {most}"
        return _told(spec, ("max_seq",), message, f"at most {most}")
    wrong = _rows(spec, layout, graph, batch) or _tokens(spec, layout, graph, length)
    if wrong is not None:
        return wrong
    rows = batch // (_parts(graph, ("batch",)) * layout.microbatches)
    tokens = length // _parts(graph, TOKEN_AXES)
    known = {"batch": rows, "slots": rows * tokens, "places": rows * tokens}
    return {name: known.get(name, tokens) for name in graph.symbols}


def _splitting(graph: Graph, names: tuple[str, ...], data: bool = True) -> tuple[MeshAxis, ...]:
    """Mesh axes whose ranks have different ones of what these axes count."""
    return tuple(axis for axis in graph.mesh if axis.data == data and set(names) & set(axis.tokens))


def _parts(graph: Graph, names: tuple[str, ...]) -> int:
    return prod(axis.size for axis in _splitting(graph, names))


def _rows(spec: Spec, layout: Layout, graph: Graph, batch: int) -> Diagnostic | None:
    parts = _parts(graph, ("batch",)) * layout.microbatches
    if batch % parts == 0:
        return None
    words = [f"{axis.name} = {axis.size}" for axis in _splitting(graph, ("batch",))]
    words += [plural(layout.microbatches, "microbatch", "es")] * (layout.microbatches > 1)
    key = "microbatches" if layout.microbatches > 1 else words[0].split(" ")[0]
    message = f"a batch of {plural(batch, 'sequence')} cannot be cut into equal parts for {' and '.join(words)}"
    return _told(spec, (*layout.at, key), message, _near(batch, parts))


def _tokens(spec: Spec, layout: Layout, graph: Graph, length: int) -> Diagnostic | None:
    """Those that ranks of a model axis share between layers must divide, too."""
    outer, inner = _splitting(graph, TOKEN_AXES), _splitting(graph, TOKEN_AXES, data=False)
    axes, shared = (*outer, *inner), prod(axis.size for axis in inner)
    parts = prod(axis.size for axis in outer) * (lcm(2, shared) if graph.zigzag else shared)
    if length % parts == 0:
        return None
    words = " and ".join(f"{axis.name} = {axis.size}" for axis in axes) + ", zigzag" * graph.zigzag
    message = f"sequences of {length} tokens cannot be cut into equal parts for {words}"
    return _told(spec, (*layout.at, axes[-1].name), message, _near(length, parts))


def _near(number: int, parts: int) -> str:
    below = number // parts * parts
    return f"the nearest are {below} and {below + parts}" if below else f"the nearest is {parts}"


def _told(spec: Spec, path: tuple[str | int, ...], message: str, help: str) -> Diagnostic:
    span = None if spec.root is None else span_of(spec.root, path)
    return Diagnostic("E702", message, span, help)
