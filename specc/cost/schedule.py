"""Seconds of a pipeline: what its ranks do in order, and when, for any schedule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

Do = Literal["F", "B", "I", "W"]
"""Forward; backward as a whole; of it the gradient of the input alone, and later those of the weights."""
DOES: tuple[Do, ...] = get_args(Do)


class Action(NamedTuple):
    """What a rank does with one microbatch in one stage."""

    do: Do
    stage: int
    microbatch: int


Orders = tuple[tuple[Action, ...], ...]
"""Of each rank."""


@dataclass(frozen=True)
class StageSeconds:
    """Of one microbatch in one stage; `weights` is the part of `backward` that can wait.

    `again`: what runs once more for that part where it waits.
    """

    forward: float
    backward: float
    weights: float = 0.0
    again: float = 0.0

    def of(self, do: Do) -> float:
        """Seconds of an action."""
        return {
            "F": self.forward,
            "B": self.backward,
            "I": self.backward - self.weights,
            "W": self.weights + self.again,
        }[do]


class Deadlock(Exception):
    """Ranks wait for each other for ever: the orders are wrong."""


def simulated(orders: Orders, stages: Sequence[StageSeconds], sent: float = 0.0) -> float:
    """Seconds until the last rank is done.

    A forward waits for that of the stage before, a backward for that of the stage behind and for its own forward,
    gradients of weights for that of the input. What comes from another rank takes `sent` seconds more. Raises Deadlock.
    """
    ranks = _Ranks(orders, stages, sent)
    ready = dict.fromkeys(range(len(orders)))  # those that may be able to go on, in order
    while ready:
        rank = next(iter(ready))
        del ready[rank]
        if ranks.run(rank):
            ready.update(dict.fromkeys(ranks.beside[rank]))
    for rank, order in enumerate(orders):
        if ranks.place[rank] < len(order):
            raise Deadlock(f"rank {rank} waits at {order[ranks.place[rank]]}")
    return max(ranks.at)


class _Ranks:
    """What was done when. Gradients of inputs stand with whole backwards: others wait for either alike."""

    def __init__(self, orders: Orders, stages: Sequence[StageSeconds], sent: float):
        self.orders = orders
        self.place, self.at = [0] * len(orders), [0.0] * len(orders)
        self.took = {do: [stage.of(do) for stage in stages] for do in DOES}
        none: dict[int, float] = {}
        self.forward = [none.copy() for _ in stages]  # of each stage, by microbatch
        self.backward = [none.copy() for _ in stages]
        rank = {action.stage: rank for rank, order in enumerate(orders) for action in order}
        last = len(stages) - 1
        self.beside: list[dict[int, None]] = [
            {} for _ in orders
        ]  # ranks with the stage before or behind one of its own
        for stage in range(last):
            self.beside[rank[stage]][rank[stage + 1]] = None
            self.beside[rank[stage + 1]][rank[stage]] = None
        self.late = [0.0 if n == last or rank[n] == rank[n + 1] else sent for n in range(len(stages))]  # to the next

    def run(self, rank: int) -> bool:
        """Do what can be done; whether there was anything."""
        order, first, at = self.orders[rank], self.place[rank], self.at[rank]
        place, last = first, len(self.forward) - 1
        while place < len(order):
            do, stage, microbatch = order[place]
            if do == "F":
                start = self.forward[stage - 1].get(microbatch) if stage else 0.0
                late = self.late[stage - 1] if stage else 0.0
            elif do == "W" or stage == last:
                start, late = (self.backward if do == "W" else self.forward)[stage].get(microbatch), 0.0
            else:
                ready = microbatch in self.forward[stage]
                start, late = self.backward[stage + 1].get(microbatch) if ready else None, self.late[stage]
            if start is None:
                break
            at = max(at, start + late) + self.took[do][stage]
            if do != "W":
                (self.forward if do == "F" else self.backward)[stage][microbatch] = at
            place += 1
        self.place[rank], self.at[rank] = place, at
        return place > first
