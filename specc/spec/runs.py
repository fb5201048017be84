"""Runs of a stack in their shortest form: layers that mean the same are the same spec, however they are written."""

from __future__ import annotations

from dataclasses import replace

from specc.spec.core import Block, Model, Run, Stack, Sublayer


def shortest(model: Model) -> Model:
    """Equal blocks are one, under the first name, and runs that go on with the period of the run before are part of it.

    A run repeats as few blocks as it can.
    """
    return replace(model, stacks=tuple(_stack(stack) for stack in model.stacks))


def _stack(stack: Stack) -> Stack:
    one = _unified(stack)
    runs: list[Run] = []
    for run in stack.runs:
        blocks = tuple(one[block] for block in run.blocks)
        period = next(n for n in range(1, len(blocks) + 1) if _repeats(blocks, run.layers, n))
        runs.append(Run(blocks[:period], run.layers))
        while len(runs) > 1 and (joined := _joined(*runs[-2:])) is not None:
            runs[-2:] = [joined]
    return replace(stack, runs=tuple(runs))


def _unified(stack: Stack) -> dict[Block, Block]:
    """For each block the first that means the same."""
    equal: dict[tuple[Sublayer, ...], list[Block]] = {}
    for block in dict.fromkeys(block for run in stack.runs for block in run.blocks):
        equal.setdefault(_meaning(block), []).append(block)
    found: dict[Block, Block] = {}
    for first, *others in equal.values():
        kept = replace(first, also=tuple(other.name for other in others))
        found |= dict.fromkeys((first, *others), kept)
    return found


def _meaning(block: Block) -> tuple[Sublayer, ...]:
    """The block without its name and places."""
    found: list[Sublayer] = []
    for sublayer in block.sublayers:
        branches = (replace(branch, at=(), under=(), around=()) for branch in sublayer.branches)
        found.append(replace(sublayer, at=(), branches=tuple(branches)))
    return tuple(found)


def _repeats(blocks: tuple[Block, ...], layers: int, period: int) -> bool:
    """Whether that many layers of the blocks in turn are what they were a period before."""
    own = len(blocks)
    return all(blocks[n] is blocks[(n + period) % own] for n in range(min(own, layers - period)))


def _joined(a: Run, b: Run) -> Run | None:
    """Both as one run of a period that is no longer than theirs, if they are that."""
    layers = a.layers + b.layers

    def block(n: int) -> Block:
        run, n = (a, n) if n < a.layers else (b, n - a.layers)
        return run.blocks[n % len(run.blocks)]

    for period in range(1, max(len(a.blocks), len(b.blocks)) + 1):
        over = range(max(0, a.layers - period), min(a.layers, layers - period))  # where b is a period later
        each = _repeats(a.blocks, a.layers, period) and _repeats(b.blocks, b.layers, period)
        if each and all(block(n) is block(n + period) for n in over):
            return Run(tuple(block(n) for n in range(min(period, layers))), layers)
    return None
