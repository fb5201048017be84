"""The parameters of a model: each once, with its layers, the stages that hold it and how it is placed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from math import prod

from specc.ir.graph import Graph
from specc.ir.op import Layer, Param, Path, dotted
from specc.ir.repeat import Repeat, layer_of, layer_scope
from specc.ir.types import Spmd


@dataclass(frozen=True)
class Stored:
    """A parameter of the model, or of all layers that run one block: `layers` has their numbers, None outside layers.

    `stages` are those that hold it (0 for a model that is not cut); a layer is on one of them.
    """

    param: Param
    spmd: Spmd
    stages: tuple[int, ...]
    layers: range | None

    @property
    def name(self) -> str:
        """`layers.{0..31}.norm.weight`"""
        return ".".join(_span(self.layers) if isinstance(part, Layer) else str(part) for part in self.param.path)

    def names(self) -> Iterator[str]:
        """The global name in each layer."""
        yield from (dotted(self.param.path, layer) for layer in (self.layers or (None,)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the whole parameter, in one layer."""
        return tuple(axis.length for axis in self.param.axes)

    @property
    def tied(self) -> bool:
        """Whether several stages hold a copy."""
        return self.layers is None and len(self.stages) > 1

    @property
    def count(self) -> int:
        """Elements in all layers."""
        return prod(self.shape) * (1 if self.layers is None else len(self.layers))


@lru_cache(maxsize=2)
def stored(graph: Graph) -> tuple[Stored, ...]:
    """In the order of first use, blocks of a run by their first layer; what is cut into stages is one."""
    found: dict[Path, Stored] = {}
    for scope, ops in groupby(graph.ops, lambda op: op.scope):
        repeat, stages = graph.repeat_of(scope), graph.stages_of(scope)
        for op in ops:
            for n, param in enumerate(op.params):
                own = Stored(param, op.uses[n].stored if op.uses else Spmd(), stages, _layers(repeat, param))
                known = found.setdefault(param.path, own)
                if known is not own and own.stages[0] not in known.stages:
                    layers = None if known.layers is None or own.layers is None else _joined(known.layers, own.layers)
                    found[param.path] = Stored(known.param, known.spmd, (*known.stages, *own.stages), layers)
    runs = groupby(found.values(), lambda item: _run(item.param.path))
    return tuple(item for _, run in runs for item in sorted(run, key=lambda item: item.layers[0] if item.layers else 0))


def _run(path: Path) -> tuple[Path, int] | None:
    layer, scope = layer_of(path), layer_scope(path)
    return None if layer is None or scope is None else (scope[:-1], layer.run)


def _layers(repeat: Repeat | None, param: Param) -> range | None:
    layer = layer_of(param.path)
    return None if layer is None or repeat is None else repeat.layers(layer.offset)


def _joined(a: range, b: range) -> range:
    """Ranges of one step that follow each other, as stages cut them."""
    return range(min(a.start, b.start), max(a[-1], b[-1]) + 1, a.step)


def _span(layers: range | None) -> str:
    """`3`, `{0..31}`, or with a step `{2..31..3}`."""
    if layers is None:
        return "*"
    if len(layers) == 1:
        return str(layers[0])
    return f"{{{layers[0]}..{layers[-1]}{f'..{layers.step}' if layers.step > 1 else ''}}}"


def total(graph: Graph) -> int:
    """Parameters of the model, each counted once; buffers are none."""
    return sum(row.count for row in stored(graph) if row.param.trained)


def placement(param: Stored, graph: Graph) -> str:
    """`tp Shard(0), dp FSDP`; parameters are whole on axes not named, buffers on all."""
    if not param.param.trained:
        return "whole"
    names = [axis.shard_name for axis in param.param.axes]
    words: list[str] = []
    for axis in graph.mesh:
        if param.spmd.at(axis.name).kind == "S":
            words.append(f"{axis.name} Shard({names.index(param.spmd.at(axis.name).axis)})")
        elif axis.data:
            words.append(f"{axis.name} FSDP")
    return ", ".join(words) or "whole"
