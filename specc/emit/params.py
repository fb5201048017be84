"""The parameters of a graph as a table: one line each, layers folded into ranges."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Param, Path, stage_of
from specc.ir.parameters import layers_at
from specc.ir.types import Spmd


@dataclass(frozen=True)
class Row:
    """A parameter of one or more layers. `layers` is None outside repeats."""

    name: str
    shape: tuple[int, ...]
    stored: Spmd
    axes: tuple[str, ...]
    stages: tuple[int, ...]
    layers: range | None
    init: str

    @property
    def count(self) -> int:
        """Elements in all layers."""
        return prod(self.shape) * (1 if self.layers is None else len(self.layers))


@dataclass
class _Found:
    """A parameter, and the stages and layers that hold it."""

    param: Param
    stored: Spmd
    stages: list[int]
    layers: list[range]


def rows(graph: Graph) -> tuple[Row, ...]:
    """One row a parameter of a block, in order of first use; equal on all stages that run the block."""
    found: dict[Path, _Found] = {}
    repeats = [op for op in graph.ops if op.kind == "repeat"]
    for op in graph.ops:
        if not op.params:
            continue
        stages = stages_of(op, graph)
        for n, param in enumerate(op.params):
            stored = op.uses[n].stored if op.uses else Spmd()
            entry = found.setdefault(param.path, _Found(param, stored, [], []))
            if stages[0] not in entry.stages:
                entry.stages += stages
                entry.layers += _layers(op, param, repeats)
    return tuple(_row(entry) for entry in found.values())


def stages_of(op: Op, graph: Graph) -> tuple[int, ...]:
    """Numbers of the pipeline stages that run an op."""
    repeats = (other for other in graph.ops if other.kind == "repeat" and other.scope == op.scope[:1])
    spans = next((attrs["spans"] for repeat in repeats if "spans" in (attrs := dict(repeat.attrs))), None)
    if not isinstance(spans, tuple):
        return (stage_of(op.scope),)
    return tuple(span[0] for span in spans if isinstance(span, tuple) and isinstance(span[0], int))


def _layers(op: Op, param: Param, repeats: list[Op]) -> list[range]:
    layer = next((part for part in param.path if isinstance(part, Layer)), None)
    if layer is None:
        return []
    at = op.scope.index(layer)
    repeat = next(r for r in repeats if (*r.scope, r.text("path")) == op.scope[:at] and r.number("run") == layer.run)
    return [layers_at(repeat, layer)]


def _row(entry: _Found) -> Row:
    param = entry.param
    layers = _joined(entry.layers)
    words = [_span(layers) if isinstance(part, Layer) else str(part) for part in param.path]
    shape = tuple(axis.length for axis in param.axes)
    names = tuple(axis.shard_name for axis in param.axes)
    return Row(".".join(words), shape, entry.stored, names, tuple(entry.stages), layers or None, str(param.init))


def _joined(parts: list[range]) -> range:
    """Ranges of one step that follow each other, as stages cut them."""
    if not parts:
        return range(0)
    return range(min(part.start for part in parts), max(part[-1] for part in parts) + 1, parts[0].step)


def _span(layers: range) -> str:
    """`3`, `{0..31}`, or with a step `{2..31..3}`."""
    if len(layers) == 1:
        return str(layers[0])
    return f"{{{layers[0]}..{layers[-1]}{f'..{layers.step}' if layers.step > 1 else ''}}}"


def total(graph: Graph) -> int:
    """Parameters of the model, each counted once."""
    return sum(row.count for row in rows(graph))


def placement(row: Row, graph: Graph) -> str:
    """`tp Shard(0), dp FSDP`; parameters are whole on axes not named."""
    words: list[str] = []
    for axis in graph.mesh:
        if axis.data:
            words.append(f"{axis.name} FSDP")
        elif row.stored.at(axis.name).kind == "S":
            words.append(f"{axis.name} Shard({row.axes.index(row.stored.at(axis.name).axis)})")
    return ", ".join(words) or "whole"


def table(graph: Graph) -> str:
    """The .params file: name, full shape, dtype, placement, stages, init."""
    lines = [("# name", "shape", "dtype", "placement", "stage", "init")]
    for row in rows(graph):
        stages = ",".join(map(str, row.stages)) if len(row.stages) < 4 else f"{row.stages[0]}..{row.stages[-1]}"
        shape = f"[{', '.join(map(str, row.shape))}]"
        lines.append((row.name, shape, "float", placement(row, graph), stages, row.init))
    widths = [max(len(line[n]) for line in lines) for n in range(5)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]) + "\n"
        for line in lines
    )
