"""Where to cut a stack of layers into pipeline stages."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from itertools import accumulate

from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.ir.repeat import layer_of
from specc.passes.parts import Section
from specc.spec.core import Layout


def starts_of(graph: Graph, sections: list[Section], layout: Layout) -> list[int]:
    """First layer of each stage but the first, of all sections' layers. Raises KeyError for a name that is no layer."""
    if layout.pp.starts:
        return _named(sections, layout.pp.starts)
    return balanced(_costs(graph, sections), layout.pp.stages)


def balanced(costs: list[int], stages: int) -> list[int]:
    """First unit of each stage but the first, so that the costliest stage is as cheap as can be.

    Among such cuts each is the nearest to its even share. Every stage gets a unit. O(units + stages * log).
    """
    ends = [0, *accumulate(costs)]  # ends[i]: cost of the first i units
    low, high = max(max(costs), -(-ends[-1] // stages)), ends[-1]
    while low < high:
        middle = (low + high) // 2
        if _latest(ends, stages, middle) is None:
            low = middle + 1
        else:
            high = middle
    latest = _latest(ends, stages, low)
    earliest = _earliest(ends, stages, low)
    assert latest is not None
    starts: list[int] = []
    previous = 0
    for stage in range(1, stages):
        first = max(earliest[stage], previous + 1)
        last = min(latest[stage], bisect_right(ends, ends[previous] + low) - 1)
        share = ends[-1] * stage
        candidates = bisect_left(ends, share // stages)
        near = min((candidates - 1, candidates), key=lambda i: abs(ends[max(i, 0)] * stages - share))
        previous = min(max(near, first), last)
        starts.append(previous)
    return starts


def _latest(ends: list[int], stages: int, limit: int) -> list[int] | None:
    """Latest start of each stage (and the end) when filling from the front; None where the limit is too low."""
    units = len(ends) - 1
    starts = [0]
    for stage in range(1, stages + 1):
        reach = bisect_right(ends, ends[starts[-1]] + limit) - 1
        starts.append(min(reach, units - (stages - stage)))
    return starts if starts[-1] == units else None


def _earliest(ends: list[int], stages: int, limit: int) -> list[int]:
    """Earliest start of each stage when filling from the back."""
    units = len(ends) - 1
    starts = [units]
    for stage in range(stages - 1, -1, -1):
        reach = bisect_left(ends, ends[starts[0]] - limit)
        starts.insert(0, max(reach, stage))
    return starts


def _costs(graph: Graph, sections: list[Section]) -> list[int]:
    """Flops of each layer, with what goes along with it."""

    def flops(op: Op) -> int:
        return graph.definition(op).flops(op, tuple(graph.type(ref) for ref in op.inputs), graph.symbols)

    costs: list[int] = []
    for item in sections:
        each = [0] * item.repeat.period
        for op in item.body:
            layer = layer_of(op.scope)
            assert layer is not None
            each[layer.offset] += flops(op)
        own = [each[number % item.repeat.period] for number in item.layers]
        own[0] += sum(map(flops, item.before))
        own[-1] += sum(map(flops, item.after))
        costs.extend(own)
    return costs


def _named(sections: list[Section], starts: tuple[str, ...]) -> list[int]:
    """Units by the names of layers ("decoder.2"). Raises KeyError."""
    first: dict[str, int] = {}
    total = 0
    for item in sections:
        first.setdefault(item.op.text("path"), total)
        total += len(item.layers)
    return [first[name.rpartition(".")[0]] + int(name.rpartition(".")[2]) for name in starts]
