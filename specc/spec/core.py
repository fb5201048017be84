"""The core form: what every spec means once its sugar is expanded. Frozen data, no behaviour.

A block is an ordered list of sublayers; a sublayer is one residual update:

    inp = norm(x) or x
    o_b = post_b(component_b(in_scale_b * (pre_b(x) or inp))) * layerscale_b * out_scale_b    for each branch b
    x   = after(alpha * base + beta * (post(sum of o_b without into) + sum of add)) * after_scale,    base = x or inp
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from specc.components.base import Config
from specc.components.norm import Norm
from specc.source import Node, Path
from specc.tables import Tables, tables


@dataclass(frozen=True)
class Branch:
    """One component of a sublayer, with its own norms and scales."""

    name: str  # module name in the block, unique there: "attention", "ffn", "attention2"
    component: Config  # every dimension resolved, nothing left None that has a default
    at: Path  # where the component is written, in a block that is like another: what changes it
    pre: Norm | None = None
    post: Norm | None = None
    in_scale: float = 1.0
    out_scale: float = 1.0
    layerscale: float | None = None  # initial value of a learned factor per channel
    dropout: float = 0.0  # on the branch's output, before it joins the residual
    under: tuple[Path, ...] = ()  # where blocks that it is like state what is not changed, nearest first
    into: str | None = None  # under which name of the block the output is kept; it is not added here
    around: Path = ()  # the mapping that its component stands in, with its norms and scales


@dataclass(frozen=True)
class Sublayer:
    """One residual update."""

    branches: tuple[Branch, ...]
    norm: Norm | None = None
    base: Literal["stream", "normed"] = "stream"
    alpha: float = 1.0
    beta: float = 1.0
    after: Norm | None = None
    at: Path = ()  # where it is written
    post: Norm | None = None  # on the sum of the branches
    add: tuple[str, ...] = ()  # kept outputs that join the sum
    after_scale: float | None = None  # initial value of a learned factor on the result


@dataclass(frozen=True)
class Block:
    """A named block of a stack."""

    name: str  # as the spec names it; "block" for the only, unnamed one
    sublayers: tuple[Sublayer, ...]
    at: Path
    also: tuple[str, ...] = ()  # names of blocks that mean the same


@dataclass(frozen=True)
class Run:
    """`layers` consecutive layers that repeat `blocks` in turn, the last repeat cut short."""

    blocks: tuple[Block, ...]
    layers: int


@dataclass(frozen=True)
class Stack:
    """Layers of an encoder or a decoder: consecutive runs (head, cycle, tail), numbered through from 0."""

    role: Literal["encoder", "decoder"]
    path: str  # module name: "layers" where there is one stack, else "encoder" or "decoder"
    runs: tuple[Run, ...]
    final_norm: Norm | None
    at: Path
    embed: Embed | None = None  # what differs of the model's embedding; its `tied` holds for all stacks

    @property
    def layers(self) -> int:
        return sum(run.layers for run in self.runs)


@dataclass(frozen=True)
class Embed:
    """Token embedding(s), positions and the head."""

    scale: float  # factor on the embedded tokens
    positions: Literal["none", "learned", "sinusoidal"]
    dropout: float
    tied: tuple[str, ...] = ()  # which of "encoder", "decoder", "head" use one matrix; () or at least two of them


@dataclass(frozen=True)
class Init:
    """How parameters start: `normal` with `std`, or `xavier` (normal with sqrt(2 / (fan_in + fan_out)))."""

    kind: Literal["normal", "xavier"]
    std: float
    embedding_std: float
    depth_scaled: bool  # the last linear of each branch: std / sqrt(number of residual updates of the stack)


@dataclass(frozen=True)
class Checkpoint:
    """Which layers are recomputed in the backward pass, and what is kept by name."""

    every: int | None = None  # layers whose number is a multiple of this; 1 is "full"; None is "none"
    save: tuple[str, ...] = ()  # "attention.core": results kept by name; implies every = 1


@dataclass(frozen=True)
class Pipeline:
    """Pipeline stages. `starts` names the first layer of each but the first ("layers.2"); () lets specc balance."""

    stages: int = 1
    schedule: Literal["gpipe", "1f1b"] = "1f1b"
    starts: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layout:
    """How a model is spread over ranks."""

    name: str | None = None  # None: that of `layout`, or of a spec without one
    tp: int = 1
    sequence_parallel: bool = False
    generate: bool = False
    dp: int = 1
    pp: Pipeline = Pipeline()
    microbatches: int = 1  # parts of a batch, one after the other or through the pipeline
    checkpoint: Checkpoint = Checkpoint()
    at: Path = ()
    others: tuple[tuple[str, int], ...] = ()  # axes of extensions that it has, with their sizes
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of activations and weights in use
    tables: Tables = field(default_factory=tables, compare=False, repr=False)  # what its axes are

    @property
    def dtype(self) -> str:
        """The precision as torch has it."""
        return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.precision]

    def size(self, axis: str) -> int:
        """Ranks of an axis of the mesh."""
        return {"dp": self.dp, "tp": self.tp, **dict(self.others)}.get(axis, 1)

    def sized(self, sizes: Mapping[str, int]) -> Layout:
        """With other numbers of ranks."""
        others = tuple((name, sizes.get(name, size)) for name, size in self.others)
        return replace(self, dp=sizes.get("dp", self.dp), tp=sizes.get("tp", self.tp), others=others)


@dataclass(frozen=True)
class Model:
    """A validated spec, layout apart."""

    name: str
    description: str | None
    d_model: int
    vocab: int
    max_seq: int
    pad: int | None  # token id of padding in the encoder's input, masked as attention key
    embed: Embed
    head_bias: bool
    init: Init
    stacks: tuple[Stack, ...]  # (decoder,), (encoder,) or (encoder, decoder)
    inputs: tuple[Literal["segments"], ...] = ()  # beside tokens
    tables: Tables = field(default_factory=tables, compare=False, repr=False)  # what its components are


@dataclass(frozen=True)
class Common:
    """What sublayers take where they say nothing of their own; the core form has it in each of them."""

    norm: Norm
    placement: Literal["pre", "post", "sandwich", "output"]
    dropout: float


@dataclass(frozen=True)
class Spec:
    """One file: a model and its layouts, the default one first."""

    model: Model
    layouts: tuple[Layout, ...]
    common: Common | None = field(default=None, compare=False)
    file: str = field(default="<spec>", compare=False)
    root: Node | None = field(default=None, compare=False, repr=False)  # where everything stands

    def layout(self, name: str | None = None) -> Layout:
        """The layout of that name, the default one for None. Raises KeyError."""
        if name is None:
            return self.layouts[0]
        return {layout.name: layout for layout in self.layouts}[name]
