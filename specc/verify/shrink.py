"""A spec with the same structure in sizes that a laptop runs: what is proven is the compiler, not the arithmetic."""

from __future__ import annotations

from dataclasses import replace
from math import prod

from specc.components.base import divisors
from specc.ir.types import TOKEN_AXES
from specc.passes.mesh import mesh_of
from specc.spec.core import Block, Branch, Embed, Frames, Head, Layout, Model, Patches, Run, Sublayer
from specc.spec.schedules import takes
from specc.verify.fewer import Groups, Stage, fewer_equal, fewer_layers, fewer_stages, stages_of, starts_of

D_MODEL, MAX_SEQ = 32, 64
OTHER = 40  # of a stack of another width
SIDE = 3  # patches of an image
NARROW = 16  # of what embeddings and heads have that is not d_model
ROWS = 24  # of the vocabulary, on each rank of tp


def least_ranks(layout: Layout) -> int:
    """Ranks of the smallest layout in which every axis in use stays in use."""
    others = prod(_smallest(size) for _, size in layout.more)
    return min(layout.size("dp"), 2) * min(layout.pp.ranks, 2) * _smallest(layout.tp) * others


def _count(groups: Groups) -> int:
    return sum(map(len, groups))


def _smallest(ranks: int) -> int:
    return divisors(ranks)[:2][-1]


def shrink(model: Model, layout: Layout, ranks: int) -> tuple[Model, Layout]:
    """Sizes that tp divides, few layers, and at most `ranks` ranks, not less than `least_ranks`.

    Axes beside dp and tp are as small as they can be. Fewer data ranks come first, then fewer of stages held once, a
    smaller divisor of tp, and last fewer stages. Stages stay what they are until then. Grouping of heads, biases,
    patterns and ties stay, an uneven vocabulary stays uneven.
    """
    others = {name: _smallest(size) for name, size in layout.more}
    tp, dp, groups = layout.tp, layout.size("dp"), stages_of(model, layout)
    each = layout.pp.per_rank
    while prod(others.values()) * tp * dp * -(-_count(groups) // each) > max(ranks, least_ranks(layout)):
        smaller = [size for size in divisors(layout.tp) if 1 < size < tp]
        if dp > 2:
            dp = max(2, dp // 2)
        elif fewer := fewer_equal(groups):
            groups = fewer
        elif smaller:
            tp = smaller[-1]
        else:
            groups = fewer_stages(groups)
    while _count(groups) % each:
        groups = fewer_equal(groups) or fewer_stages(groups)
    stages = fewer_layers(model, groups)
    pipeline = replace(layout.pp, stages=len(stages), starts=starts_of(model, stages))
    counts = range(min(layout.microbatches, 2 * len(stages)), 0, -1)
    microbatches = next(n for n in counts if takes(pipeline.kind, pipeline.ranks, each, n))
    small = replace(layout.sized({**others, "tp": tp, "dp": dp}), pp=pipeline, microbatches=microbatches)
    return _model(model, layout, small, stages), small


def lengths(layout: Layout, inputs: int) -> list[int]:
    """Of each input of a batch, in tokens: different ones that tp divides, and twice what else splits them."""
    ranks = prod(axis.size for axis in mesh_of(layout) if axis.name == "tp" or set(axis.tokens) & set(TOKEN_AXES))
    return [ranks * (2 * max(1, -(-8 // (2 * ranks))) + 2 * n) for n in range(inputs)]


def _model(model: Model, layout: Layout, small: Layout, stages: list[Stage]) -> Model:
    uneven = small.tp - 1 if model.vocab % layout.tp else 0  # one token less on the last rank
    rows = model.vocab // layout.tp  # odd or even, for FSDP2
    layers = iter([sum(run) for run in zip(*stages, strict=True)])
    parts = small.tp * (small.cp if small.context.how == "ulysses" else 1)  # of heads
    stacks = tuple(
        replace(
            stack,
            runs=tuple(Run(_blocks(model, run.blocks, parts), next(layers)) for run in stack.runs),
            d_model=None if stack.d_model is None else OTHER,
        )
        for stack in model.stacks
    )
    most = max(min(model.max_seq, MAX_SEQ), *lengths(small, len(stacks)))
    embeds = tuple(_embed(model.embed_of(stack), most, small.tp) for stack in stacks)
    return replace(
        model,
        d_model=D_MODEL,
        vocab=((ROWS + rows % 2) * small.tp + uneven) * bool(model.vocab),
        max_seq=most if len(stacks) > 1 or embeds[0].tokens is None else embeds[0].tokens,
        embed=_embed(model.embed, most, small.tp),
        head=_head(model),
        multi_token=model.multi_token
        and replace(model.multi_token, blocks=_blocks(model, model.multi_token.blocks, parts)),
        pad=None if model.pad is None else min(model.pad, 1),
        stacks=tuple(replace(stack, embed=embed) for stack, embed in zip(stacks, embeds, strict=True)),
    )


def _head(model: Model) -> Head:
    of, rows = model.head, min(model.head.rows, NARROW - 1)
    pool = of.pool and replace(of.pool, token=None if of.pool.token is None else min(of.pool.token, 2))
    return replace(of, dim=D_MODEL if of.dim == model.d_model else NARROW, rows=rows, pool=pool)


def _embed(embed: Embed, most: int, tp: int) -> Embed:
    """Of as many tokens as tp divides, where it divides those that there are."""
    positions, project, registers = embed.positions, embed.project, embed.registers
    embed = replace(embed, stem=embed.stem and _stem(embed.stem, tp, most))
    embed = replace(embed, registers=registers if registers < 8 else tp + registers % tp)
    return replace(
        embed,
        positions=positions and replace(positions, size=most if embed.places is None else embed.places),
        project=project and replace(project, dim=NARROW),
    )


def _stem(of: Patches | Frames, tp: int, most: int) -> Patches | Frames:
    if isinstance(of, Frames):
        return replace(of, channels=min(of.channels, 3), tokens=min(of.tokens, most + (of.tokens - most) % tp))
    side = of.image // of.patch
    side = side if side < SIDE else SIDE + (side - SIDE) % tp
    return replace(of, channels=min(of.channels, 3), image=side * min(of.patch, 2), patch=min(of.patch, 2))


def _blocks(model: Model, blocks: tuple[Block, ...], tp: int) -> tuple[Block, ...]:
    def branch(of: Branch) -> Branch:
        return replace(of, component=model.tables.component(of.component).shrink(of.component, tp))

    def sublayer(of: Sublayer) -> Sublayer:
        return replace(of, branches=tuple(map(branch, of.branches)))

    return tuple(replace(block, sublayers=tuple(map(sublayer, block.sublayers))) for block in blocks)
