"""Layers that share values: a toy component that leaves some for later layers, reads those of earlier ones, or both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from specc.components.base import Component, Config, Dim, Given
from specc.components.norm import Norm
from specc.extension import Extension
from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.spec.core import Block, Branch, Embed, Head, Model, Run, Stack, Sublayer
from specc.tables import tables
from tests.models import INIT, MAX_SEQ, VOCAB, llama_block

if TYPE_CHECKING:
    from specc.lower.builder import Builder

D_MODEL, NORM = 32, Norm(kind="rms", eps=1e-2).resolved()


class Shared(Config):
    """Values of heads, mixed with those of an earlier layer."""

    heads: Dim = 4
    """Heads."""
    give: str | None = None
    """The name under which later layers know the values."""
    take: str | None = None
    """The name of values that are mixed in."""


def lower(config: Shared, b: Builder, x: Ref, given: Given, features: Axis) -> Ref:
    """x [batch, seq, d_model] -> the same."""
    joint = Axis.of(heads=config.heads, head_dim=8)
    v = b.op("split", b.linear(x, "v", joint, features, False, hint="v"), name="heads", hint="v", heads=config.heads)
    if config.take is not None:
        v = b.op("scale", b.op("add", v, given[config.take], hint="v"), hint="v", factor=0.5)
    if config.give is not None:
        b.named[config.give] = v
    return b.linear(b.op("merge", v), "o", features, joint, False, last=True)


SHARED = Component(
    "shared",
    Shared,
    "Shared",
    lower,
    smallest={},
    shards=("heads",),
    split_by_tp=lambda config: (("heads", config.heads),),
    results=lambda config: ("v", "o"),
    shrink=lambda config, tp: config,
    takes=lambda config: () if config.take is None else (config.take,),
    gives=lambda config: () if config.give is None else (config.give,),
)

TABLES = tables((Extension("sharing", (SHARED,)),))


def block(name: str, config: Config, *, attention: bool = False) -> Block:
    """A residual update by the component, behind attention and a feed-forward where asked."""
    own = Sublayer((Branch("shared", config, ("block", "shared"), pre=NORM),))
    before = llama_block(scaling=None).sublayers if attention else ()
    return Block(name, (*before, own), ("decoder", name))


def model(*runs: Run) -> Model:
    """One decoder stack."""
    stack = Stack("decoder", "layers", runs, NORM, ("decoder",))
    embed = Embed(1.0, None, 0.0, ())
    return Model("sharing", None, D_MODEL, VOCAB, MAX_SEQ, None, embed, Head(D_MODEL), INIT, (stack,), tables=TABLES)


GIVES, TAKES = block("giving", Shared(give="v")), block("taking", Shared(take="v"), attention=True)
PLAIN = block("plain", Shared())
RESIDUAL = model(Run((GIVES,), 1), Run((TAKES,), 4))
"""Values of the first layer, mixed into those of all others."""
PERIOD = model(Run((GIVES, TAKES, PLAIN), 8))
"""A layer of each three reads what the one before it made."""
LATEST = model(Run((GIVES,), 1), Run((PLAIN, TAKES, GIVES), 7), Run((TAKES,), 1))
"""What a layer reads was made a turn earlier; the last of all is read behind the run."""
MODELS = {"residual": RESIDUAL, "period": PERIOD, "latest": LATEST}
