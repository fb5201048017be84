"""A spec with the same structure in sizes that a laptop runs: what is proven is the compiler, not the arithmetic."""

from __future__ import annotations

from dataclasses import replace

from specc.components import definition
from specc.spec.core import Block, Branch, Layout, Model, Pipeline, Run, Stack, Sublayer

RANKS = 16  # processes at most
D_MODEL, MAX_SEQ = 32, 64


def shrink_layout(layout: Layout, ranks: int = RANKS) -> Layout:
    """Halve dp, then pp, then tp, until at most that many ranks are left; every axis in use stays in use."""
    tp, dp, pp = layout.tp, layout.dp, layout.pp.stages
    while tp * dp * pp > ranks:
        if dp > 2:
            dp = max(2, dp // 2)
        elif pp > 2 and pp >= tp:
            pp = max(2, pp // 2)
        elif tp > 2:
            tp = max(2, tp // 2)
        else:
            break
    starts = layout.pp.starts if pp == layout.pp.stages else ()
    pipeline = replace(layout.pp, stages=pp, microbatches=min(layout.pp.microbatches, 2 * pp), starts=starts)
    return replace(layout, tp=tp, dp=dp, pp=pipeline, sequence_parallel=layout.sequence_parallel and tp > 1)


def shrink_model(model: Model, layout: Layout) -> Model:
    """Sizes that the layout's tp divides and layers enough for its stages; all else as it is.

    Grouping of heads, biases, patterns and ties stay, and an uneven vocabulary stays uneven.
    """
    tp = layout.tp
    vocab = 24 * tp + (1 if model.vocab % tp or model.vocab % 2 else 0)
    stacks = tuple(_stack(stack, layout, len(model.stacks)) for stack in model.stacks)
    return replace(
        model,
        d_model=D_MODEL,
        vocab=min(model.vocab, vocab),
        max_seq=min(model.max_seq, MAX_SEQ),
        pad=None if model.pad is None else min(model.pad, 1),
        stacks=stacks,
    )


def shrink_starts(layout: Layout) -> Layout:
    """Without named starts: they speak of layers that shrinking removed."""
    return replace(layout, pp=Pipeline(layout.pp.stages, layout.pp.schedule, layout.pp.microbatches))


def _stack(stack: Stack, layout: Layout, stacks: int) -> Stack:
    """Every run keeps at least a period and a layer of the next; the last one has what the stages still need."""
    wanted = -(-max(layout.pp.stages, 2) // stacks) + 1
    runs = [Run(_blocks(run.blocks, layout.tp), min(run.layers, len(run.blocks) + 1)) for run in stack.runs]
    missing = wanted - sum(run.layers for run in runs)
    longest = max(range(len(runs)), key=lambda n: stack.runs[n].layers - runs[n].layers)
    grown = min(stack.runs[longest].layers, runs[longest].layers + max(0, missing))
    runs[longest] = replace(runs[longest], layers=grown)
    return replace(stack, runs=tuple(runs))


def _blocks(blocks: tuple[Block, ...], tp: int) -> tuple[Block, ...]:
    return tuple(replace(block, sublayers=tuple(_sublayer(item, tp) for item in block.sublayers)) for block in blocks)


def _sublayer(sublayer: Sublayer, tp: int) -> Sublayer:
    return replace(sublayer, branches=tuple(_branch(branch, tp) for branch in sublayer.branches))


def _branch(branch: Branch, tp: int) -> Branch:
    return replace(branch, component=definition(branch.component).shrink(branch.component, tp))
