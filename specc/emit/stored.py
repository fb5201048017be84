"""Parameters under their global names, and where they are."""

from __future__ import annotations

from dataclasses import dataclass

from specc.ir.graph import Graph
from specc.ir.op import Layer, Op, Param, Path, Use, dotted


@dataclass(frozen=True)
class Stored:
    """A parameter: its global name, and the stages that hold it (0 for a model that is not cut)."""

    name: str
    param: Param
    use: Use | None
    stages: tuple[int, ...]


def stored(graph: Graph) -> tuple[Stored, ...]:
    """Every parameter once, in the order of first use, those of a layer together."""
    found: dict[str, Stored] = {}
    runs = {(op.scope, op.text("path"), op.number("run")): op for op in graph.ops if op.kind == "repeat"}
    for layer, op in _in_layers(graph, runs):
        for n, param in enumerate(op.params):
            name = dotted(param.path, layer)
            use = op.uses[n] if op.uses else None
            known = found.setdefault(name, Stored(name, param, use, ()))
            stages = tuple(dict.fromkeys((*known.stages, stage_of(op.scope))))
            found[name] = Stored(name, known.param, known.use, stages)
    return tuple(found.values())


def stage_of(scope: Path) -> int:
    """Number of the stage that a scope stands in."""
    first = scope[0] if scope else ""
    return int(first[5:]) if isinstance(first, str) and first[:5] == "stage" and first[5:].isdigit() else 0


def _in_layers(graph: Graph, runs: dict[tuple[Path, str, int], Op]) -> list[tuple[int | None, Op]]:
    """Every op with the number of each layer it runs in, layer by layer."""
    found: list[tuple[int | None, Op]] = []
    body: list[Op] = []
    for op in graph.ops:
        if op.kind == "end":
            found += [(layer, inner) for layer in _layers(body, runs) for inner in body if _runs(inner, layer, runs)]
            body = []
        elif _layer(op) is None:
            found.append((None, op))
        else:
            body.append(op)
    return found


def _layer(op: Op) -> tuple[int, Layer] | None:
    return next(((n, part) for n, part in enumerate(op.scope) if isinstance(part, Layer)), None)


def _repeat(op: Op, runs: dict[tuple[Path, str, int], Op]) -> tuple[Layer, Op]:
    place = _layer(op)
    assert place is not None
    n, layer = place
    return layer, runs[op.scope[: n - 1], str(op.scope[n - 1]), layer.run]


def _layers(body: list[Op], runs: dict[tuple[Path, str, int], Op]) -> range:
    if not body:
        return range(0)
    _, repeat = _repeat(body[0], runs)
    return range(repeat.number("start"), repeat.number("start") + repeat.number("n"))


def _runs(op: Op, layer: int, runs: dict[tuple[Path, str, int], Op]) -> bool:
    place, repeat = _repeat(op, runs)
    return layer % repeat.number("period") == place.offset
