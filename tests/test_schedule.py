"""Schedules: torch's own orders, closed forms for equal stages, no deadlock, and what interleaving gains."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import networkx as nx
import pytest
from torch.distributed.pipelining import schedules as torch_schedules
from torch.distributed.pipelining._utils import generate_stage_to_rank_mapping

from specc.cost.schedule import Action, Deadlock, Do, StageSeconds, simulated
from specc.cost.schedules import ORDERS
from specc.spec.core import Pipeline
from specc.spec.schedules import SCHEDULES, ScheduleName, takes

TORCH: dict[ScheduleName, Any] = {
    "looped_bfs": torch_schedules.ScheduleLoopedBFS,
    "interleaved_1f1b": torch_schedules.ScheduleInterleaved1F1B,
    "interleaved_zero_bubble": torch_schedules.ScheduleInterleavedZeroBubble,
    "zbv": torch_schedules.ScheduleZBVZeroBubble,
    "dualpipev": torch_schedules.ScheduleDualPipeV,
}
DOES: dict[str, Do] = {"FORWARD": "F", "FULL_BACKWARD": "B", "BACKWARD_INPUT": "I", "BACKWARD_WEIGHT": "W"}
EACH = [(name, p, m, v) for name in SCHEDULES for p in range(1, 9) for m in range(1, 9) for v in range(1, 9)]


def legal(name: ScheduleName, ranks: int, microbatches: int, virtual: int) -> bool:
    """What `check` takes."""
    kind = SCHEDULES[name]
    return kind.per_rank in (None, virtual) and takes(kind, ranks, virtual, microbatches)


CASES = [case for case in EACH if legal(*case)]


def of_torch(name: ScheduleName, ranks: int, microbatches: int, virtual: int) -> list[list[Action]]:
    """The actions of torch's class, made without processes: what they are computed from is set by hand."""
    made: Any = TORCH[name].__new__(TORCH[name])
    made.pp_group_size, made._n_microbatches = ranks, microbatches
    made.n_local_stages, made._stages = virtual, [None] * virtual
    made.num_stages = ranks * virtual
    made.number_of_rounds = max(1, microbatches // ranks)
    made.microbatches_per_round = microbatches // made.number_of_rounds
    orders: list[list[Action]] = []
    for rank in range(ranks):
        made.rank = rank
        actions = [action for action in made._calculate_single_rank_operations(rank) if action is not None]
        flat = [part for action in actions for part in (action.sub_actions or (action,))]
        orders.append([Action(DOES[a.computation_type.name], a.stage_index, a.microbatch_index) for a in flat])
    return orders


@pytest.mark.parametrize("name", TORCH)
def test_orders_are_those_of_torch(name: ScheduleName) -> None:
    cases = [case[1:] for case in CASES if case[0] == name]
    assert cases
    for ranks, microbatches, virtual in [*cases, *(((2, 16, 2), (4, 20, 2)) if SCHEDULES[name].per_rank == 2 else ())]:
        found = ORDERS[name](ranks, microbatches, virtual)
        assert [list(order) for order in found] == of_torch(name, ranks, microbatches, virtual)


def test_there_is_every_schedule_that_torch_has() -> None:
    classes = {
        item
        for name, item in vars(torch_schedules).items()
        if name.startswith("Schedule") and isinstance(item, type) and not name.startswith("SchedulePipe")
    }
    assert classes == {*TORCH.values(), torch_schedules.ScheduleGPipe, torch_schedules.Schedule1F1B}


def made(name: ScheduleName, ranks: int, microbatches: int, virtual: int) -> Any:
    """Torch's schedule of stages that nothing runs. Raises ValueError for what it refuses."""
    cls = getattr(torch_schedules, SCHEDULES[name].cls)
    each = {"group_size": ranks, "group_rank": 0, "num_stages": ranks * virtual, "is_last": False, "submod": None}
    stages = [SimpleNamespace(**each, has_backward=True) for _ in range(virtual)]
    return cls(stages[0] if SCHEDULES[name].single else stages, microbatches, lambda outputs, labels: outputs)


@pytest.mark.parametrize("name", SCHEDULES)
def test_check_takes_what_torch_takes(name: ScheduleName) -> None:
    for case in itertools.product(range(2, 5), range(1, 13), range(1, 4)):
        if SCHEDULES[name].single and case[2] > 1:
            continue  # it is given one stage
        try:
            made(name, *case)
            good = True
        except ValueError:
            good = False
        assert good == legal(name, *case), case


@pytest.mark.parametrize("name", TORCH)
def test_sends_and_receives_have_an_order(name: ScheduleName) -> None:
    """Even where every rank does one thing after the other, and a send waits for its receive."""
    for case in [(2, 2, 2), (2, 5, 2), (4, 8, 2), (4, 9, 2), (3, 6, 3)]:
        if legal(name, *case):
            assert nx.is_directed_acyclic_graph(waits(made(name, *case).pipeline_order_with_comms))


def waits(orders: Mapping[int, Sequence[Any]]) -> nx.DiGraph:
    """Who waits for whom: a send and its receive are one."""
    graph: nx.DiGraph = nx.DiGraph()
    for rank, order in orders.items():
        nodes = [_node(rank, part) for action in order for part in action.sub_actions or (action,)]
        nx.add_path(graph, nodes)
    return graph


def _node(rank: int, action: Any) -> tuple[Any, ...]:
    kind, stage, microbatch = action.computation_type.name, action.stage_index, action.microbatch_index
    if kind.startswith(("SEND", "RECV")):
        to = {"SEND_F": stage + 1, "SEND_B": stage - 1}.get(kind, stage)
        return (kind[-1], to, microbatch)
    return (rank, kind, stage, microbatch)


def test_what_waits_in_a_circle_is_seen() -> None:
    orders = dict(made("interleaved_1f1b", 2, 4, 2).pipeline_order_with_comms)
    sends = [n for n, action in enumerate(orders[1]) if action.computation_type.name == "SEND_F"]
    orders[1] = [*orders[1]]
    orders[1][sends[0]], orders[1][sends[1]] = orders[1][sends[1]], orders[1][sends[0]]
    assert not nx.is_directed_acyclic_graph(waits(orders))


@pytest.mark.parametrize("name", SCHEDULES)
def test_all_is_done_once_by_the_rank_that_has_the_stage_and_nobody_waits_for_ever(name: str) -> None:
    cases = [case[1:] for case in CASES if case[0] == name]
    for ranks, microbatches, virtual in cases:
        stages = ranks * virtual
        pp = Pipeline(stages, name, per_rank=virtual)
        orders = ORDERS[name](ranks, microbatches, virtual)
        done = [(action.do, action.stage, action.microbatch) for order in orders for action in order]
        assert len(set(done)) == len(done)
        for what in ({"F"}, {"B", "I"}, {"B", "W"}):
            assert len([1 for do, _, _ in done if do in what]) == stages * microbatches
        for rank, order in enumerate(orders):
            assert {pp.rank(action.stage) for action in order} == {rank}
            style = generate_stage_to_rank_mapping(ranks, stages, "v" if pp.kind.v else "loop")
            assert all(style[action.stage] == rank for action in order)
        each = [StageSeconds(1.0, 2.0, 1.0)] * stages
        assert simulated(orders, each) >= 3.0 * microbatches * virtual - 1e-9


def test_equal_stages_take_what_the_closed_form_says() -> None:
    f, b = 1.0, 2.5
    for p in range(1, 9):
        for m in range(p, 17):
            stages = [StageSeconds(f, b)] * p
            for name in ("gpipe", "1f1b"):
                assert simulated(ORDERS[name](p, m, 1), stages) == pytest.approx((m + p - 1) * (f + b))


def test_interleaving_divides_the_bubble() -> None:
    """(p - 1) / (v M) of the time of all microbatches, where ranks divide these (2104.04473, 2.2.2)."""
    f, b = 1.0, 2.0
    for p in (2, 4, 8):
        for v in (1, 2, 3, 4):
            for m in (p, 2 * p, 4 * p):
                stages = [StageSeconds(f / v, b / v)] * (p * v)
                took = simulated(ORDERS["interleaved_1f1b"](p, m, v), stages)
                assert took / (m * (f + b)) - 1 == pytest.approx((p - 1) / (v * m))


def test_what_interleaving_gained_at_405b() -> None:
    """torchtitan went from 100 to 128 tokens a second; eight stages and microbatches, two stages a rank."""
    one = simulated(ORDERS["1f1b"](8, 8, 1), [StageSeconds(1.0, 2.0)] * 8)
    two = simulated(ORDERS["interleaved_1f1b"](8, 8, 2), [StageSeconds(0.5, 1.0)] * 16)
    assert one / two == pytest.approx(1.304, abs=5e-4)


def test_zero_bubbles_are_smaller() -> None:
    """Of equal forward, input and weight gradients (2401.10241): in a V hardly anything is idle."""
    p, m = 4, 16
    looped = [StageSeconds(0.5, 1.0, 0.5)] * (2 * p)
    one = simulated(ORDERS["1f1b"](p, m, 1), [StageSeconds(1.0, 2.0, 1.0)] * p)
    took = {name: simulated(ORDERS[name](p, m, 2), looped) for name in TORCH}
    assert took["zbv"] <= took["interleaved_zero_bubble"] < took["interleaved_1f1b"] < one
    assert took["zbv"] == pytest.approx(3.0 * m, rel=0.04)


def test_sending_takes_its_time_between_ranks_alone() -> None:
    stages = [StageSeconds(1.0, 2.0)] * 4
    orders = ORDERS["gpipe"](4, 1, 1)
    assert simulated(orders, stages, 0.25) == pytest.approx(12 + 6 * 0.25)
    turned = ORDERS["zbv"](2, 1, 2)
    split = [StageSeconds(1.0, 2.0, 1.0)] * 4
    assert simulated(turned, split, 0.25) == pytest.approx(simulated(turned, split) + 4 * 0.25)


def test_a_deadlock_is_told() -> None:
    orders = ((Action("B", 0, 0), Action("F", 0, 0)), (Action("F", 1, 0), Action("B", 1, 0)))
    with pytest.raises(Deadlock, match=r"rank 0 waits at Action\(do='B', stage=0"):
        simulated(orders, [StageSeconds(1.0, 2.0)] * 2)
