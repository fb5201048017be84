"""Schedules of pipelines: what each rank does in order. Those of torch 2.13, action by action.

Ranks have `virtual` stages each. Looped, rank r has stages r, r + ranks, r + 2 ranks ...; in a V it has r and the r-th
from the end.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from itertools import islice

from specc.cost.schedule import Action, Do, Orders
from specc.spec.schedules import ScheduleName

Order = tuple[Action, ...]


@lru_cache(maxsize=64)
def ordered(name: ScheduleName, ranks: int, microbatches: int, virtual: int) -> Orders:
    """What each rank does in a schedule of that name. Raises ValueError as the schedule does."""
    return ORDERS[name](ranks, microbatches, virtual)


def gpipe(ranks: int, microbatches: int, virtual: int = 1) -> Orders:
    """All forwards, then all backwards (1811.06965); with several stages breadth first (2211.05953)."""
    if virtual > 1:
        return looped_bfs(ranks, microbatches, virtual)
    every = range(microbatches)
    return tuple((*(Action("F", r, m) for m in every), *(Action("B", r, m) for m in every)) for r in range(ranks))


def one_f_one_b(ranks: int, microbatches: int, virtual: int = 1) -> Orders:
    """As soon as there is something to go back, forward and backward in turn (1806.03377)."""
    return tuple(_one_f_one_b(rank, ranks, microbatches) for rank in range(ranks))


def _one_f_one_b(rank: int, ranks: int, microbatches: int) -> Order:
    ahead = min(microbatches, ranks - rank)
    order = [Action("F", rank, m) for m in range(ahead)]
    for m in range(microbatches):
        order.append(Action("B", rank, m))
        if m + ahead < microbatches:
            order.append(Action("F", rank, m + ahead))
    return tuple(order)


def looped_bfs(ranks: int, microbatches: int, virtual: int) -> Orders:
    """Every microbatch through a stage before the next stage of the rank (2211.05953)."""
    orders: list[Order] = []
    for rank in range(ranks):
        stages = range(rank, ranks * virtual, ranks)
        there = [Action("F", stage, m) for stage in stages for m in range(microbatches)]
        back = [Action("B", stage, m) for stage in reversed(stages) for m in reversed(range(microbatches))]
        orders.append((*there, *back))
    return tuple(orders)


def interleaved_1f1b(ranks: int, microbatches: int, virtual: int) -> Orders:
    """1f1b of several stages a rank, depth first (2104.04473). Raises ValueError where rounds are not equal."""
    return tuple(_interleaved(rank, ranks, microbatches, virtual, False) for rank in range(ranks))


def interleaved_zero_bubble(ranks: int, microbatches: int, virtual: int) -> Orders:
    """The same with gradients of weights where a rank would wait (ZB1P of 2401.10241). Raises ValueError likewise."""
    return tuple(_interleaved(rank, ranks, microbatches, virtual, True) for rank in range(ranks))


def _interleaved(rank: int, ranks: int, microbatches: int, virtual: int, split: bool) -> Order:
    rounds = max(1, microbatches // ranks)
    if microbatches % rounds:
        raise ValueError(f"{microbatches} microbatches are not {rounds} equal rounds")
    size, all = microbatches // rounds, microbatches * virtual
    ahead = min((virtual - 1) * size + (1 if split else 2) * (ranks - 1 - rank), all)
    back: Do = "I" if split else "B"
    seen: Counter[tuple[Do, int]] = Counter()
    order: list[Action] = []

    def put(do: Do, chunk: int) -> None:
        stage = chunk * ranks + rank
        order.append(Action(do, stage, seen[do, stage]))
        seen[do, stage] += 1

    def chunk(step: int) -> int:
        return virtual - 1 - (step // size) % virtual

    for step in range(ahead):
        put("F", (step // size) % virtual)
    later = 0
    for step in range(all):
        if step + ahead < all:
            put("F", ((step + ahead) // size) % virtual)
        put(back, chunk(step))
        if split and step >= rank:
            put("W", chunk(later))
            later += 1
    for step in range(later, all if split else later):
        put("W", chunk(step))
    return tuple(order)


def zbv(ranks: int, microbatches: int, virtual: int = 2) -> Orders:
    """Two stages a rank in a V, backward in two parts (2401.10241, section 6)."""
    return tuple(_zbv(rank, ranks, microbatches) for rank in range(ranks))


def _zbv(rank: int, ranks: int, microbatches: int) -> Order:
    """For as many microbatches as fill the pipeline; those that there are not are left out."""
    many = max(2 * ranks - 1, microbatches)
    down, up = rank, 2 * ranks - 1 - rank
    seen: Counter[tuple[Do, int]] = Counter()
    order: list[Action] = []

    def put(stage: int, *what: Do) -> None:
        for do in what:
            order.append(Action(do, stage, seen[do, stage]))
            seen[do, stage] += 1

    for _ in range(2 * (ranks - rank) - 1):
        put(down, "F")
    for _ in range(rank):
        put(up, "F")
        put(down, "F")
    for _ in range(ranks - rank):
        put(up, "F", "I", "W")
    while seen["F", up] < seen["F", down] or seen["F", down] < many:
        if seen["F", down] < many:
            put(down, "F")
        put(down, "I", "W")
        put(up, "F", "I", "W")
    for _ in range(rank):
        put(down, "I")
        put(up, "I")
    for _ in range(ranks - rank):
        put(down, "I", "W")
    for stage in (up, down):
        while seen["W", stage] < seen["I", stage]:
            put(stage, "W")
    return tuple(action for action in order if action.microbatch < microbatches)


def dualpipev(ranks: int, microbatches: int, virtual: int = 2) -> Orders:
    """DualPipe folded to a V (2412.19437). Raises ValueError for fewer microbatches than stages.

    Where torch runs a forward and a backward together they stand here one after the other, as it runs them unless told
    otherwise.
    """
    if microbatches < 2 * ranks:
        raise ValueError(f"{microbatches} microbatches are fewer than {2 * ranks} stages")
    return tuple(_dualpipev(rank, ranks, microbatches) for rank in range(ranks))


def _dualpipev(rank: int, ranks: int, microbatches: int) -> Order:
    down, up = rank, 2 * ranks - 1 - rank
    seen: Counter[tuple[str, int]] = Counter()
    waiting: deque[Action] = deque()
    order: list[Action] = []

    def put(do: Do, stage: int) -> None:
        key = ("F" if do == "F" else "back", stage)
        order.append(Action(do, stage, seen[key]))
        if do == "I":
            waiting.append(order[-1]._replace(do="W"))
        seen[key] += 1

    def late() -> None:
        if waiting:
            order.append(waiting.popleft())

    for _ in range(2 * (ranks - rank - 1)):
        put("F", down)
    for _ in range(rank + 1):
        put("F", down)
        put("F", up)
    for _ in range(ranks - rank - 1):
        put("I", up)
        late()
        put("F", up)
    for _ in range(microbatches - 2 * ranks + rank + 1):
        put("F", down)
        put("B", up)
        put("F", up)
        put("B", down)
    for _ in range(ranks - rank - 1):
        put("B", up)
        put("F", up)
        put("B", down)
    split = False
    for step in range(rank + 1):
        split |= step == (rank + 1) // 2 and rank % 2 == 1
        put("I" if split else "B", up)
        split |= step == (rank + 1) // 2 and rank % 2 == 0
        put("I" if split else "B", down)
    for _ in range(ranks - rank - 1):
        late()
        put("I" if split else "B", down)
    for _ in range(rank + 1):
        late()
    return tuple(order)


def gathers(order: Order, most: int = 3) -> Counter[int]:
    """How often a rank gathers the weights of each of its stages: torch has those of the next three ready."""
    every = {action.stage for action in order}
    if len(every) <= most:
        return Counter(every)
    held: set[int] = set()
    found: Counter[int] = Counter()
    for n in range(len(order)):
        soon = set(islice(_stages(order, n), most))
        found.update(soon - held)
        held = soon
    return found


def _stages(order: Order, start: int) -> Iterator[int]:
    seen: set[int] = set()
    for action in islice(order, start, None):
        if action.stage not in seen:
            seen.add(action.stage)
            yield action.stage


ORDERS: Mapping[ScheduleName, Callable[[int, int, int], Orders]] = {
    "gpipe": gpipe,
    "1f1b": one_f_one_b,
    "looped_bfs": looped_bfs,
    "interleaved_1f1b": interleaved_1f1b,
    "interleaved_zero_bubble": interleaved_zero_bubble,
    "zbv": zbv,
    "dualpipev": dualpipev,
}
"""Orders of (ranks, microbatches, stages of a rank)."""
