"""What travels between pipeline stages, as meta tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from specc.emit.code import ident
from specc.ir.graph import Graph
from specc.ir.op import Ref
from specc.ir.types import TOKEN_AXES, Axis, Spmd, TensorType


class Borders(Protocol):
    """Values that enter and leave a stage."""

    @property
    def inputs(self) -> tuple[Ref, ...]: ...
    @property
    def outputs(self) -> tuple[Ref, ...]: ...


@dataclass(frozen=True)
class Cuts:
    """Distinct meta tensors as (name, source), and the tuple of names before each stage and after the last."""

    values: tuple[tuple[str, str], ...]
    rows: tuple[str, ...]


def cuts(graph: Graph, stages: Sequence[Borders]) -> Cuts:
    """Each value by its local shape on a rank, its dtype, and whether it carries gradient."""
    fed = [op.hint for op in graph.passed]  # with every batch, by name
    taken = [[ref for ref in stage.inputs if graph.hint(ref) not in fed] for stage in stages]
    borders = [*taken, stages[-1].outputs]
    names: dict[str, str] = {}
    rows: list[str] = []
    for refs in borders:
        row = [_named(graph, ref, names) for ref in refs]
        rows.append(f"({', '.join(row)}{',' if len(row) == 1 else ''})")
    return Cuts(tuple((name, source) for source, name in names.items()), tuple(rows))


def _named(graph: Graph, ref: Ref, names: dict[str, str]) -> str:
    type = graph.type(ref)
    source = _source(graph, type, graph.spmd(ref) if graph.mesh else Spmd())
    if source not in names:
        word = graph.hint(ref)
        word = "hidden" if type.grad and word == "x" else word
        word = f"{word}_ids" if any(axis.name == word for axis in type.axes) else word  # the length has that name
        axis = next((axis.name for axis in type.axes if axis.name in TOKEN_AXES), "")
        choices = (word, f"{word}_{axis}", *(f"{word}{n}" for n in range(2, 100)))
        names[source] = str(ident(next(choice for choice in choices if choice not in names.values())))
    return names[source]


def _source(graph: Graph, type: TensorType, spmd: Spmd) -> str:
    sizes = {axis.name: axis.size for axis in graph.mesh if not axis.data}
    parts: list[str] = []
    words: list[str] = []
    uneven = ""
    for n, axis in enumerate(type.axes):
        over = [name for name in spmd.shards(axis) if name in sizes]
        ranks = 1
        for name in over:
            ranks *= sizes[name]
        words.append("/".join([axis.name.split("*")[0], *over]))
        if isinstance(axis.size, int) and axis.size % ranks:
            uneven = f'.chunk({ranks}, {n})[mesh.get_local_rank("{over[0]}")]'
            ranks = 1
        parts.append(_size(axis, ranks))
    options = f", dtype={_dtype(graph, type)}"
    options += ", requires_grad=True" if type.grad else ""
    comment = f"  # [{', '.join(words)}]" if type.grad else ""
    return f"torch.empty({', '.join(parts) or '()'}{options}){uneven}{comment}"


def _dtype(graph: Graph, type: TensorType) -> str:
    """The stream's type; the parameters' own is that of sums."""
    if type.dtype in ("int64", "bool"):
        return f"torch.{type.dtype}"
    return "COMPUTE" if type.dtype == graph.type(graph.outputs[0]).dtype else "REDUCE"


def _size(axis: Axis, ranks: int) -> str:
    if isinstance(axis.size, int):
        return str(axis.size // ranks)
    return axis.size if ranks == 1 else f"{axis.size} // {ranks}"
