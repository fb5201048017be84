"""Parameters under their global names, and where they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Param, Path, dotted, stage_of
from specc.ir.parameters import layers_at


@dataclass(frozen=True)
class Stored:
    """A parameter by its global name; of a repeat its first layer stands for all, and `layers` has their numbers.

    `stages` are those that hold it (0 for a model that is not cut); layers are on one each.
    """

    name: str
    param: Param
    stages: tuple[int, ...]
    layers: range | None

    def names(self) -> Iterator[str]:
        """The global names of all layers."""
        if self.layers is None:
            yield self.name
        else:
            yield from (dotted(self.param.path, layer) for layer in self.layers)


def stored(graph: Graph) -> tuple[Stored, ...]:
    """Every parameter once, in the order of first use."""
    found: dict[tuple[Path, int], Stored] = {}
    runs = {(op.scope, op.text("path"), op.number("run")): op for op in graph.ops if op.kind == "repeat"}
    for op in graph.ops:
        for param in op.params:
            layers = _layers(op, runs) if any(isinstance(part, Layer) for part in param.path) else None
            stage = stage_of(op.scope)
            key = (param.path, -1 if layers is None else stage)
            name = dotted(param.path, None if layers is None else layers.start)
            known = found.setdefault(key, Stored(name, param, (), layers))
            stages = tuple(dict.fromkeys((*known.stages, stage)))
            found[key] = Stored(known.name, param, stages, layers)
    return tuple(found.values())


def _layers(op: Op, runs: dict[tuple[Path, str, int], Op]) -> range:
    at, layer = next((n, part) for n, part in enumerate(op.scope) if isinstance(part, Layer))
    return layers_at(runs[op.scope[: at - 1], str(op.scope[at - 1]), layer.run], layer)
