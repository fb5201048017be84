"""Where to cut a stack of layers into pipeline stages."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from itertools import accumulate, pairwise

from specc.ir.graph import Graph
from specc.ir.op import Likeness, Op, likeness
from specc.ir.repeat import layer_of
from specc.passes.parts import Section, sections
from specc.source import Diagnostic, Node, span_of
from specc.spec.core import Layout

UNEVEN = 1.2
"""How much more the costliest of stated stages may do than the costliest of balanced ones."""

FEW = 8  # stages that a message lists


def starts_of(graph: Graph, found: list[Section], layout: Layout) -> list[int]:
    """First layer of each stage but the first, of all sections' layers. Raises KeyError for a name that is no layer."""
    if layout.pp.starts:
        return _named(found, layout.pp.starts)
    return balanced(_costs(graph, found), layout.pp.stages)


def start_findings(graph: Graph, layout: Layout, root: Node | None = None) -> list[Diagnostic]:
    """W502 where the costliest stage of stated starts does far more than one of balanced stages would.

    `graph` is typed and not cut yet; `root` is the document, for the place.
    """
    if not layout.pp.starts:
        return []
    found = sections(graph)
    costs = _costs(graph, found)
    best = balanced(costs, layout.pp.stages)
    ours, theirs = _shares(costs, _named(found, layout.pp.starts)), _shares(costs, best)
    if max(ours) <= UNEVEN * max(theirs):
        return []
    where = None if root is None else span_of(root, (*layout.at, "pp", "starts"))
    message = f"stages do {_percent(ours)} of the flops; balanced they would do {_percent(theirs)}"
    other = f", or give {', '.join(_names(found, best))}" if len(best) < FEW else ""
    return [Diagnostic("W502", message, where, f"leave starts out{other}", severity="warning")]


def _shares(costs: list[int], starts: list[int]) -> list[float]:
    """The part of all cost that each stage has."""
    ends = [0, *accumulate(costs)]
    return [(ends[b] - ends[a]) / ends[-1] for a, b in pairwise([0, *starts, len(costs)])]


def _percent(shares: list[float]) -> str:
    """`93 and 7 %`; of many stages the least and the most."""
    if len(shares) > FEW:
        return f"{100 * min(shares):.1f} to {100 * max(shares):.1f} %"
    words = [f"{100 * share:.0f}" for share in shares]
    return f"{', '.join(words[:-1])} and {words[-1]} %"


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


def _costs(graph: Graph, found: list[Section]) -> list[int]:
    """Flops of each layer, with what goes along with it."""

    known: dict[Likeness, int] = {}

    def flops(op: Op) -> int:
        ins = graph.ins(op)
        key = likeness(op, ins)
        if key not in known:
            known[key] = graph.definition(op).flops(op, ins, graph.symbols)
        return known[key]

    costs: list[int] = []
    for item in found:
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


def _names(found: list[Section], starts: list[int]) -> list[str]:
    """Names of layers by their units."""
    names: list[str] = []
    counts: Counter[str] = Counter()
    for item in found:
        path = item.op.text("path")
        names += [f"{path}.{counts[path] + n}" for n in range(len(item.layers))]
        counts[path] += len(item.layers)
    return [names[start] for start in starts]


def _named(found: list[Section], starts: tuple[str, ...]) -> list[int]:
    """Units by the names of layers ("decoder.2"). Raises KeyError."""
    first: dict[str, int] = {}
    total = 0
    for item in found:
        first.setdefault(item.op.text("path"), total)
        total += len(item.layers)
    return [first[name.rpartition(".")[0]] + int(name.rpartition(".")[2]) for name in starts]
