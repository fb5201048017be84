"""Predictions of later tokens (DeepSeek-AI 2024, 2.2): one step for each, behind the model's own and with its head."""

from __future__ import annotations

from dataclasses import dataclass

from specc.components import norm
from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.lower.builder import TERMS, Builder
from specc.lower.embedding import looked_up
from specc.lower.stack import Around, lower_block
from specc.spec.core import Model, MultiToken, Stack


@dataclass(frozen=True)
class Steps:
    """What every step is made of."""

    model: Model
    stack: Stack
    of: MultiToken
    around: Around


def lower_steps(b: Builder, steps: Steps, x: Ref, ids: Ref) -> tuple[Ref, ...]:
    """x [batch, seq, d_model], the last norm behind it, and tokens [batch, seq] -> the same of each step.

    Step k stands at each token for the one k + 1 places on, of which it knows those up to k places on.
    """
    found: list[Ref] = []
    blocks = [branch for block in steps.of.blocks for sublayer in block.sublayers for branch in sublayer.branches]
    adds = any(b.tables.component(branch.component).adds_to_loss(branch.component) for branch in blocks)
    if adds and TERMS not in b.named:
        b.named[TERMS] = b.op("zero", x, hint="terms")
    for number in range(1, steps.of.steps + 1):
        ids = b.op("tokens_ahead", ids, name=f"tokens_ahead{number}", hint="ahead")
        x = _step(
            b, steps, number, x, looked_up(b, steps.model, steps.stack, ids, f"ahead{number}_", "following"), adds
        )
        found.append(x)
    return tuple(found)


def _step(b: Builder, steps: Steps, number: int, x: Ref, ahead: Ref, adds: bool) -> Ref:
    """norm(blocks(linear of norm(x) and norm(ahead)))."""
    name, features, given = f"multi_token{number}", steps.around.features, steps.around.given
    inner = Axis("d_model", features.length)
    carried = (b.named[TERMS],) if adds else ()
    with b.scope(name, (x, ahead, *carried, *given.values()), ("NextToken",)):
        own, other = (
            norm.lower(steps.of.norm, b, ref, f"{which}_norm", features) for which, ref in (("x", x), ("ahead", ahead))
        )
        own, other = (
            b.linear(ref, which, features, inner, bias=False) for which, ref in (("x", own), ("ahead", other))
        )
        x = b.op("add", own, other, name="join")
        for n, block in enumerate(steps.of.blocks):
            x = lower_block(b, steps.stack, block, f"block{n}", x, steps.around)
        x = norm.lower(steps.of.norm, b, x, "norm", features)
        b.returns(x, *((b.named[TERMS],) if adds else ()))
    return x
