"""The shape of what stands around the stacks of a spec: embedding, head, starts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, Tag

from specc.components.activation import Activation
from specc.components.base import Bound, Config, Dim, Formula, Rate, StdFormula, by_kind
from specc.components.norm import OwnNorm

Part = Literal["encoder", "decoder", "head"]
Input = Literal["positions", "segments", "mask"]
Rows = Annotated[int, Field(ge=0, le=2**16)]
Registers = Annotated[int, Field(ge=0, le=2**10)]


class PositionsDoc(Config):
    """A vector for each position."""

    kind: Literal["learned", "sinusoidal"]
    """A table that is trained, or sines and cosines (Vaswani et al. 2017, 3.5)."""
    size: Dim | None = None
    """Rows of a table that can be used; with an offset it has so many more. Of what a stem of frames makes, how many
    there are. Default: max_seq, or what a stem of patches makes and its class token."""
    offset: Rows = 0
    """Number of the first position."""
    order: Literal["interleaved", "halves"] | None = None
    """Of sinusoids: sine and cosine in turn, or all sines first. Default: `interleaved`."""
    endpoint: bool | None = None
    """Of sinusoids: the last wavelength is exactly 10000 turns, not the one behind it. Default: false."""
    skip_pad: bool = False
    """Positions count tokens that are no padding; padding itself has the one before the first."""


Positions = Annotated[
    Annotated[Literal["none", "learned", "sinusoidal"], Tag("text")] | Annotated[PositionsDoc, Tag("mapping")], by_kind
]


class ProjectionDoc(Config):
    """Tokens are embedded in other features than d_model, and a linear makes d_model of them."""

    dim: Dim
    """Features of the embedded tokens."""
    bias: bool = False
    """Of the linear."""
    at: Literal["tokens", "end"] = "end"
    """Right after the lookup, or after positions, norm and dropout."""


class PatchesDoc(Config):
    """What a stack reads in place of tokens: the patches of an image, a linear of each. The model takes `images`
    [batch, channels, image, image], which are numbers."""

    kind: Literal["patches"]
    """Squares that share no pixel, row by row."""
    channels: Annotated[int, Field(ge=1, le=2**12)] = 3
    """Numbers of a pixel."""
    image: Annotated[int, Field(ge=1, le=2**14)]
    """Pixels a side."""
    patch: Annotated[int, Field(ge=1, le=2**14)]
    """Pixels a side; there are (image / patch)**2 patches."""
    bias: bool = True
    """Of the linear."""


class ConvDoc(Config):
    """A convolution along time, with half a kernel of zeros at either end."""

    width: Annotated[int, Field(ge=1, le=2**10)]
    """Frames that it sees, an odd number."""
    stride: Annotated[int, Field(ge=1, le=2**10)] = 1
    """Every so many frames there is one of the result."""


class FramesDoc(Config):
    """What a stack reads in place of tokens: convolutions of the frames of a spectrogram. The model takes `frames`
    [batch, channels, time], which are numbers: all that make as many tokens as there are positions."""

    kind: Literal["frames"]
    """Along time."""
    channels: Annotated[int, Field(ge=1, le=2**16)]
    """Bands of the spectrogram."""
    convs: Annotated[list[ConvDoc], Field(min_length=1, max_length=16)]
    """In order, each followed by the activation."""
    activation: Activation = "gelu"
    """Behind each of them."""
    bias: bool = True
    """Of the convolutions."""


StemDoc = Annotated[PatchesDoc | FramesDoc, Field(discriminator="kind")]


class StackEmbeddingDoc(Config):
    """What differs of the embedding in one stack."""

    stem: StemDoc | None = None
    """What this stack reads in place of tokens."""
    class_token: bool | None = None
    """A vector in front of what the stem makes. Default: the model's."""
    registers: Registers | None = None
    """Vectors behind it. Default: the model's."""

    scale: Formula | None = None
    """Factor on the embedded tokens. Default: the model's."""
    positions: Positions | None = None
    """Positions added to them. Default: the model's."""
    norm: OwnNorm | None = None
    """A norm on the sum. Default: the model's."""
    dropout: Rate | None = None
    """Rate on the sum. Default: the model's."""


class EmbeddingDoc(Config):
    """Tokens and positions to vectors. In order: tokens or stem, project, scale, types, class token, positions,
    registers, norm, dropout."""

    stem: StemDoc | None = None
    """What the stack reads in place of tokens, in a model of one."""
    class_token: bool = False
    """A vector that is trained in front of what a stem makes; it has the first position."""
    registers: Registers = 0
    """Vectors that are trained behind it, without a position (Darcet et al. 2024)."""
    scale: Formula = 1.0
    """Factor on the embedded tokens."""
    positions: Positions = "none"
    """Positions added to them."""
    types: Annotated[int, Field(ge=0, le=2**16)] = 0
    """Kinds of tokens (first and second text), each with a vector that is added; the model then takes `types`."""
    norm: OwnNorm = False
    """A norm on the sum."""
    project: Annotated[Annotated[Dim, Tag("number")] | Annotated[ProjectionDoc, Tag("mapping")], by_kind] | None = None
    """Features of the embedded tokens, where they are not d_model; a linear makes d_model of them."""
    tied: Annotated[Annotated[bool, Tag("bool")] | Annotated[list[Part], Tag("list")], by_kind] = False
    """Which use one matrix: true for all, or some of encoder, decoder, head."""
    dropout: Rate | None = None
    """Rate on the sum. Default: the model's."""


class PoolDoc(Config):
    """The vector of a token that stands for its row."""

    kind: Literal["token"]
    """The first place of a token."""
    token: Annotated[int, Field(ge=0, le=2**24)]
    """Its number; in a row without it, the first place of all."""


Pool = Annotated[
    Annotated[Literal["first", "last", "mean", "max"], Tag("text")] | Annotated[PoolDoc, Tag("mapping")], by_kind
]


class TransformDoc(Config):
    """A linear, an activation and a norm before the logits."""

    activation: Activation = "gelu"
    """Behind the linear."""
    norm: OwnNorm = True
    """Behind the activation."""
    bias: bool = True
    """Of the linear."""


class MultiTokenDoc(Config):
    """Predictions of tokens behind the next one: steps that follow each other, all with the model's head."""

    steps: Annotated[int, Field(ge=1, le=64)] = 1
    """Tokens beyond the next."""
    block: Annotated[list[str], Field(min_length=1, max_length=64)]
    """Blocks that each step runs, on a linear of a norm of what is before it and a norm of the embedded token that was
    predicted before. A norm follows, which the head and the next step read."""
    loss: Annotated[float, Field(ge=0.0, le=1e4)] = 0.1
    """Factor on the mean of their losses. A step has the label of so many places on,
    where there are labels up to it."""


class HeadDoc(Config):
    """Vectors to logits. In order: pool, transform, dropout, projection, scale, softcap, normalize."""

    kind: Literal["lm", "classes", "vector"] = "lm"
    """Logits of the vocabulary for each token, logits of classes, or a vector. Labels of classes are whole numbers,
    -100 where there is none; those of a vector are numbers of its shape, of which the loss is the squared difference,
    NaN where there is none. `head: none` ends after the final norm, and its labels are those of such vectors."""
    classes: Annotated[int, Field(ge=1, le=2**20)] | None = None
    """Number of classes, of that kind."""
    size: Dim | None = None
    """Features of a vector, which a linear makes. Default: those that are there."""
    pool: Pool | None = None
    """One vector a row, of classes or a vector: the first or the last token, the mean or the largest of each feature;
    padding is left out. Default: one for each token."""
    dropout: Rate = 0.0
    """Rate before the last linear, of classes or a vector."""
    normalize: bool = False
    """Vectors have the length 1."""
    bias: bool = False
    """A bias for each token, class or feature."""
    scale: Formula = 1.0
    """Factor on the logits."""
    softcap: Bound | None = None
    """Logits are softcap * tanh(logits / softcap)."""
    dim: Dim | None = None
    """Features that the last linear reads; the transform, or a linear without bias, makes them. Default: of a
    vocabulary embedding.project.dim, else d_model."""
    transform: TransformDoc | None = None
    multi_token: MultiTokenDoc | None = None


class LossDoc(Config):
    """What training makes small beside what components add: the cross entropy of labels, changed."""

    label_smoothing: Rate = 0.0
    """Share of the target that is spread over the vocabulary."""
    z_loss: Annotated[float, Field(ge=0.0, le=1.0)] = 0.0
    """Factor on the squared log of the normaliser."""


Kind = Literal["normal", "xavier", "kaiming", "uniform", "zeros", "ones", "constant"]
Cut = Annotated[float, Field(ge=0.1, le=10)]
Value = Annotated[float, Field(ge=-1e4, le=1e4)]


class StartDoc(Config):
    """How one parameter starts."""

    kind: Kind = "normal"
    """As in `init`."""
    std: StdFormula | None = None
    """Standard deviation of a normal, bound of uniform. Default: `init.std`."""
    truncate: Cut | None = None
    """Draws beyond so many standard deviations are drawn again."""
    value: Value | None = None
    """Of `constant`."""


class InitDoc(Config):
    """How weights and embeddings start; norms are one, biases zero."""

    kind: Kind = "normal"
    """`normal` has one std; `xavier` (Glorot and Bengio 2010) and `kaiming` (He et al. 2015) are normals with one for
    each shape, where embeddings are `normal`; `uniform` is between std and its negative; `constant` is `value`."""
    std: StdFormula = 0.02
    """Standard deviation of `normal`, and of embeddings; bound of `uniform`."""
    truncate: Cut | None = None
    """Draws of normals beyond so many standard deviations are drawn again."""
    value: Value | None = None
    """Of `constant`."""
    parameters: Annotated[dict[str, StartDoc], Field(default_factory=dict, max_length=256)]
    """Other starts by name without stack and layer, as in `attention.o` or `attention.o.bias`; `embedding` stands for
    all tables of embeddings."""
    depth_scaled: bool = False
    """Divide the std of the last linear of every branch by the root of the stack's number of residual updates."""
