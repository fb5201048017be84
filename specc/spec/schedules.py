"""Schedules of pipelines: what each of torch.distributed.pipelining's asks of a layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

ScheduleName = Literal["gpipe", "1f1b", "looped_bfs", "interleaved_1f1b", "interleaved_zero_bubble", "zbv", "dualpipev"]
NAMES: tuple[ScheduleName, ...] = get_args(ScheduleName)


@dataclass(frozen=True)
class Schedule:
    """A schedule: its class in torch, how many stages a rank has (None: any number), and how they are shared out.

    Looped, rank r of n has stages r, r + n, r + 2 n ...; in a V it has r and the r-th from the end. `split`: gradients
    of inputs come before those of weights. `filled`: there must be as many microbatches as stages. `rounds`: they must
    be so many equal rounds as ranks go into them.
    """

    cls: str
    per_rank: int | None
    v: bool = False
    split: bool = False
    filled: bool = False
    rounds: bool = False

    @property
    def single(self) -> bool:
        """Whether torch gives it one stage, not a list of them."""
        return self.per_rank == 1


SCHEDULES: Mapping[ScheduleName, Schedule] = {
    "gpipe": Schedule("ScheduleGPipe", 1),
    "1f1b": Schedule("Schedule1F1B", 1, filled=True),
    "looped_bfs": Schedule("ScheduleLoopedBFS", None),
    "interleaved_1f1b": Schedule("ScheduleInterleaved1F1B", None, rounds=True),
    "interleaved_zero_bubble": Schedule("ScheduleInterleavedZeroBubble", None, split=True, rounds=True),
    "zbv": Schedule("ScheduleZBVZeroBubble", 2, v=True, split=True),
    "dualpipev": Schedule("ScheduleDualPipeV", 2, v=True, split=True, filled=True),
}


@dataclass(frozen=True)
class Pipeline:
    """Pipeline stages. `starts` names the first layer of each but the first ("layers.2"); () lets specc balance."""

    stages: int = 1
    schedule: ScheduleName = "1f1b"
    starts: tuple[str, ...] = ()
    per_rank: int = 1

    @property
    def kind(self) -> Schedule:
        """What its schedule asks for."""
        return SCHEDULES[self.schedule]

    @property
    def splits(self) -> bool:
        """Whether gradients of weights come apart from those of inputs."""
        return self.stages > 1 and self.kind.split

    @property
    def ranks(self) -> int:
        """Of the pipeline."""
        return self.stages // self.per_rank

    @property
    def held_by(self) -> str:
        """Who holds a weight that is tied, in words."""
        return "stages" if self.per_rank == 1 else "ranks of pp"

    def rank(self, stage: int) -> int:
        """Which one has the stage."""
        return self.stages - 1 - stage if self.kind.v and stage >= self.ranks else stage % self.ranks

    def held(self, rank: int) -> tuple[int, ...]:
        """The stages of a rank."""
        return tuple(stage for stage in range(self.stages) if self.rank(stage) == rank)


def rounds(ranks: int, microbatches: int) -> int:
    """Into how many equal rounds interleaved schedules cut microbatches."""
    return max(1, microbatches // ranks)


def takes(kind: Schedule, ranks: int, per_rank: int, microbatches: int) -> bool:
    """Whether so many microbatches go with it."""
    if kind.filled and microbatches < ranks * per_rank:
        return False
    return microbatches > 0 and not (kind.rounds and microbatches % rounds(ranks, microbatches))


def nearest(kind: Schedule, ranks: int, per_rank: int, microbatches: int) -> tuple[int, ...]:
    """The next numbers of microbatches below and above that go with it."""
    below = (n for n in range(microbatches - 1, 0, -1) if takes(kind, ranks, per_rank, n))
    above = (n for n in range(microbatches + 1, 2 * (microbatches + ranks * per_rank) + 2))
    return (*([n for n in [next(below, 0)] if n]), next(n for n in above if takes(kind, ranks, per_rank, n)))
