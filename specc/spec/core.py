"""The core form: what every spec means once its sugar is expanded. Frozen data, no behaviour.

A block is an ordered list of sublayers; a sublayer is one residual update:

    inp = norm(x) or x
    o_b = post_b(component_b(in_scale_b * (pre_b(x) or inp))) * layerscale_b * out_scale_b    for each branch b
    x   = after(alpha * base + beta * (post(sum of o_b without into) + sum of add)) * after_scale,    base = x or inp
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod
from typing import Literal

from specc.components.activation import Activation
from specc.components.base import Config
from specc.components.norm import Norm
from specc.source import Node, Path
from specc.spec.schedules import Pipeline
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
    drop_path: float = 0.0  # how often the output is left out for a sample
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
    shared: tuple[str, ...] = ()  # names of blocks whose layers have one set of parameters
    d_model: int | None = None  # where it is not the model's

    @property
    def layers(self) -> int:
        return sum(run.layers for run in self.runs)


@dataclass(frozen=True)
class Positions:
    """A vector for each position, added to the embedded tokens."""

    kind: Literal["learned", "sinusoidal"]
    size: int  # rows of a table that can be used; it has `offset` more
    offset: int = 0  # number of the first position
    halves: bool = False  # sinusoids: all sines first, not sine and cosine in turn
    endpoint: bool = False  # sinusoids: the last wavelength is exactly 10000 turns
    skip_pad: bool = False  # only tokens that are no padding are counted


@dataclass(frozen=True)
class Projection:
    """Tokens are embedded in `dim` features, of which a linear makes d_model."""

    dim: int
    bias: bool = False
    first: bool = False  # right after the lookup; else it comes last


@dataclass(frozen=True)
class Patches:
    """What a stack reads in place of tokens: a linear of each patch of an image."""

    channels: int
    image: int  # pixels a side
    patch: int  # pixels a side
    bias: bool = True

    @property
    def tokens(self) -> int:
        """How many it makes."""
        return (self.image // self.patch) ** 2

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it reads, without the batch."""
        return (self.channels, self.image, self.image)


@dataclass(frozen=True)
class Conv:
    """A convolution along time, padded so that every stride makes one of its result."""

    width: int
    stride: int = 1


@dataclass(frozen=True)
class Frames:
    """What a stack reads in place of tokens: convolutions of the frames of a spectrogram."""

    channels: int
    convs: tuple[Conv, ...]
    activation: Activation
    bias: bool
    tokens: int  # how many it makes

    @property
    def shape(self) -> tuple[int, ...]:
        """Of what it reads, without the batch."""
        return (self.channels, self.tokens * prod(conv.stride for conv in self.convs))


@dataclass(frozen=True)
class Embed:
    """Embedding of a stack's tokens."""

    scale: float  # factor on the embedded tokens
    positions: Positions | None
    dropout: float
    tied: tuple[str, ...] = ()  # which of "encoder", "decoder", "head" use one matrix; () or at least two of them
    types: int = 0  # kinds of tokens, each with a vector that is added
    norm: Norm | None = None  # on the sum
    project: Projection | None = None
    stem: Patches | Frames | None = None  # in place of tokens
    class_token: bool = False  # in front, before positions are added
    registers: int = 0  # behind it, after that

    @property
    def places(self) -> int | None:
        """How many tokens have positions, where their number is known."""
        return None if self.stem is None else self.stem.tokens + self.class_token

    @property
    def tokens(self) -> int | None:
        """How many tokens layers see, where their number is known."""
        return None if self.places is None else self.places + self.registers

    def width(self, d_model: int) -> int:
        """Features of the vectors that positions, types and norm are of."""
        return d_model if self.project is None or self.project.first else self.project.dim


@dataclass(frozen=True)
class Transform:
    """A linear, an activation and a norm before the logits."""

    activation: Activation
    norm: Norm | None
    bias: bool


@dataclass(frozen=True)
class Pool:
    """One vector of a row."""

    how: Literal["first", "last", "mean", "max"]
    token: int | None = None  # of places where it stands


@dataclass(frozen=True)
class Head:
    """Vectors to logits: pool, transform, dropout, projection, scale, softcap, normalize."""

    dim: int  # features that the last linear reads
    bias: bool = False
    scale: float = 1.0
    softcap: float | None = None
    transform: Transform | None = None
    kind: Literal["lm", "classes", "vector", "none"] = "lm"
    rows: int = 0  # of the last linear but for an lm: classes, or features of a vector, 0 for no linear
    pool: Pool | None = None
    dropout: float = 0.0  # before the last linear
    normalize: bool = False  # a vector has the length 1

    @property
    def numbers(self) -> bool:
        """Whether labels are numbers that the outputs are to be, not numbers of classes."""
        return self.kind in ("vector", "none")


@dataclass(frozen=True)
class MultiToken:
    """Steps that predict tokens behind the next one."""

    steps: int
    blocks: tuple[Block, ...]  # of each step
    loss: float  # factor on the mean of their losses
    norm: Norm


@dataclass(frozen=True)
class Loss:
    """The cross entropy of labels, changed."""

    label_smoothing: float = 0.0  # share of the target that is spread over the vocabulary
    z_loss: float = 0.0  # factor on the squared log of the normaliser


Kind = Literal["normal", "xavier", "kaiming", "uniform", "zeros", "ones", "constant"]


@dataclass(frozen=True)
class Start:
    """How a parameter starts: `xavier` is normal with sqrt(2 / (fan_in + fan_out)), `kaiming` with sqrt(2 / fan_in)."""

    kind: Kind
    std: float  # of normal, bound of uniform
    truncate: float | None = None  # draws of normals beyond so many std are drawn again
    value: float = 0.0  # of constant


@dataclass(frozen=True)
class Init:
    """How parameters start; embeddings are normal with a std of their own where the kind has one for each shape."""

    kind: Kind
    std: float
    embedding_std: float
    depth_scaled: bool  # the last linear of each branch: std / sqrt(number of residual updates of the stack)
    truncate: float | None = None
    value: float = 0.0
    parameters: tuple[tuple[str, Start], ...] = ()  # others by name without stack and layer, in the document's order


@dataclass(frozen=True)
class Checkpoint:
    """Which layers are recomputed in the backward pass, and what is kept by name."""

    every: int | None = None  # layers whose number is a multiple of this; 1 is "full"; None is "none"
    save: tuple[str, ...] = ()  # "attention.core": results kept by name; implies every = 1


@dataclass(frozen=True)
class Context:
    """How ranks of cp share out rows."""

    how: Literal["gather", "ulysses"] = "gather"
    order: Literal["contiguous", "zigzag"] | None = None  # None: as the model allows, see specc.passes.context


@dataclass(frozen=True)
class Layout:
    """How a model is spread over ranks."""

    name: str | None = None  # None: that of `layout`, or of a spec without one
    tp: int = 1
    sequence_parallel: bool = False
    generate: bool = False
    dp: int = 1
    ep: int = 1  # of the ranks of dp
    cp: int = 1
    context: Context = Context()
    pp: Pipeline = field(default_factory=Pipeline)
    microbatches: int = 1  # parts of a batch, one after the other or through the pipeline
    checkpoint: Checkpoint = Checkpoint()
    at: Path = ()
    others: tuple[tuple[str, int], ...] = ()  # axes of extensions that it has, with their sizes
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"  # of activations and weights in use
    rules: tuple[tuple[str, str], ...] = ()  # an axis, or component.axis, and a mesh axis or none
    tables: Tables = field(default_factory=tables, compare=False, repr=False)  # what its axes are

    @property
    def dtype(self) -> str:
        """The precision as torch has it."""
        return {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}[self.precision]

    @property
    def more(self) -> tuple[tuple[str, int], ...]:
        """Axes in use beside dp and tp, with their sizes."""
        own = (("cp", self.cp), ("ep", self.ep))
        return (*(item for item in own if item[1] > 1), *self.others)

    def size(self, axis: str) -> int:
        """Ranks of an axis of the mesh: ep is the inner part of dp, so the axis dp is what is left."""
        own = {"dp": self.dp // self.ep, "ep": self.ep, "cp": self.cp, "tp": self.tp}
        return {**own, **dict(self.others)}.get(axis, 1)

    def keeps_whole(self, component: str, axis: str) -> bool:
        """Whether no mesh axis splits an axis of a component, "" outside of all; what is said of its own holds."""
        said = dict(self.rules)
        return said.get(f"{component}.{axis}", said.get(axis)) == "none"

    def sized(self, sizes: Mapping[str, int]) -> Layout:
        """With other numbers of ranks of axes of the mesh."""
        others = tuple((name, sizes.get(name, size)) for name, size in self.others)
        own = {axis: sizes.get(axis, self.size(axis)) for axis in ("dp", "ep", "cp", "tp")}
        return replace(self, **own | {"dp": own["dp"] * own["ep"]}, others=others)


@dataclass(frozen=True)
class Model:
    """A validated spec, layout apart."""

    name: str
    description: str | None
    d_model: int
    vocab: int  # 0 where nothing reads or predicts tokens
    max_seq: int
    pad: int | None  # token id of padding in the encoder's input, masked as attention key
    embed: Embed
    head: Head
    init: Init
    stacks: tuple[Stack, ...]  # (decoder,), (encoder,) or (encoder, decoder)
    inputs: tuple[Literal["positions", "segments", "mask", "types", "prefix"], ...] = ()  # beside tokens
    loss: Loss = Loss()
    multi_token: MultiToken | None = None
    tables: Tables = field(default_factory=tables, compare=False, repr=False)  # what its components are

    def width(self, stack: Stack) -> int:
        """Features of the stream of a stack."""
        return stack.d_model or self.d_model

    def embed_of(self, stack: Stack) -> Embed:
        """How what a stack reads is embedded."""
        return stack.embed or self.embed


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
