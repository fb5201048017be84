"""The shape of a spec file, its components apart. What its values mean together is checked on the core form."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, Tag

from specc.components.base import Config, Dim, Factor, Formula, Rate, RateFormula, by_kind
from specc.components.norm import Norm, OwnNorm
from specc.spec.around import EmbeddingDoc, HeadDoc, InitDoc, Input, LossDoc, StackEmbeddingDoc
from specc.spec.schedules import ScheduleName

LAYERS = 100_000
"""Layers of a stack, at most."""
PERIOD = 256
"""Layers that a pattern repeats, at most."""
RANKS = 2**16
"""Ranks of an axis, at most; also parts of a batch."""
STAGES = 2**10
"""Pipeline stages, at most: a file lists them, and a build goes through each."""
Layers = Annotated[int, Field(ge=1, le=LAYERS)]
Count = Annotated[int, Field(ge=1, le=RANKS)]
Stages = Annotated[int, Field(ge=1, le=STAGES)]
Named = Annotated[list[str], Field(default_factory=list, max_length=PERIOD)]


Placement = Literal["pre", "post", "sandwich", "output"]


class ModelNorm(Norm):
    """The norm of every sublayer, and of `true` where a norm may stand."""

    placement: Placement = "pre"
    """`pre`: x + f(norm(x)); `post`: norm(x + f(x)); `sandwich`: x + norm(f(norm(x))); `output`: x + norm(f(x))."""


Base = Literal["stream", "normed"]


class ResidualDoc(Config):
    """Constants of every residual update."""

    base: Base = "stream"
    """What branches are added to: the stream, or what the shared norm makes of it."""
    alpha: Formula = 1.0
    """Factor on the base."""
    beta: Formula = 1.0
    """Factor on the sum of the branches."""


class ComponentDoc(Config):
    """What names a component: one key for each."""


class BranchDoc(ComponentDoc):
    """A component of `parallel`, with its own norms and factors."""

    pre: OwnNorm | None = None
    """A norm on the input. Default: by placement."""
    post: OwnNorm | None = None
    """A norm on the output; beside `parallel`, on the sum. Default: by placement."""
    in_scale: Formula = 1.0
    """Factor on the input."""
    out_scale: Formula = 1.0
    """Factor on the output."""
    layerscale: Factor | None = None
    """Initial value of a learned factor for each channel of the output."""
    dropout: Rate | None = None
    """Rate on the output. Default: the model's."""
    into: str | None = None
    """The output is kept under this name in the block, not added here."""


class SublayerDoc(BranchDoc):
    """One residual update: one component, or `parallel`; other keys say what differs from the model's."""

    parallel: Annotated[list[BranchDoc], Field(min_length=2, max_length=16)] | None = None
    """Components that read the same input."""
    placement: Placement | None = None
    """Where norms stand. Default: `norm.placement`."""
    norm: OwnNorm | None = None
    """A norm that all branches read. Default: by placement."""
    after: OwnNorm | None = None
    """A norm on the result. Default: by placement."""
    base: Base | None = None
    """What branches are added to. Default: `residual.base`."""
    alpha: Formula | None = None
    """Factor on the base. Default: `residual.alpha`."""
    beta: Formula | None = None
    """Factor on the sum of the branches. Default: `residual.beta`."""
    after_scale: Factor | None = None
    """Initial value of one learned factor on the result."""
    add: Annotated[list[str], Field(default_factory=list, max_length=16)]
    """Outputs kept before in the block that join the sum here."""


class LikeDoc(Config):
    """Another block with changes."""

    like: str
    """Name of the block."""
    with_: Annotated[dict[str, dict[str, Any]], Field(alias="with", default_factory=dict)]
    """New values by component: `ffn` is the first ffn of the block, `ffn2` the second. null restores a default."""


SUBLAYERS = 64
"""Sublayers of a block, at most."""
Sublayers = Annotated[list[SublayerDoc], Field(min_length=1, max_length=SUBLAYERS)]
BlockDoc = Annotated[Annotated[Sublayers, Tag("list")] | Annotated[LikeDoc, Tag("mapping")], by_kind]


class PatternDoc(Config):
    """Named blocks in order: head once, cycle repeated and cut to the number of layers, tail once."""

    head: Named
    """The first layers."""
    cycle: Named
    """Those between, in turn; a pattern that is a list is this."""
    tail: Named
    """The last layers."""


Names = Annotated[list[str], Field(min_length=1, max_length=PERIOD)]
Pattern = Annotated[Annotated[Names, Tag("list")] | Annotated[PatternDoc, Tag("mapping")], by_kind]


class StackDoc(Config):
    """The layers of an encoder or a decoder."""

    layers: Layers
    """Number of layers."""
    block: Sublayers | None = None
    """The block of every layer."""
    pattern: Pattern | None = None
    """Named blocks instead; `local*5` stands for five."""
    patterns: Annotated[dict[str, Pattern], Field(default_factory=dict, max_length=8)]
    """Several patterns by name instead: a layer runs the blocks of each in turn, as one block."""
    shared: Annotated[Annotated[bool, Tag("bool")] | Annotated[Names, Tag("list")], by_kind] = False
    """Layers of one block use one set of parameters: of every block, or of those listed."""
    d_model: Dim | None = None
    """Features of the stream of an encoder beside a decoder, where it has others. Default: the model's."""
    embedding: StackEmbeddingDoc | None = None
    norm: ModelNorm | None = None
    """Keys of the model's norm that differ in this stack. Default: the model's."""
    final_norm: OwnNorm | None = None
    """A norm after the last layer. Default: false where norms are placed `post`, else true."""


class PipelineDoc(Config):
    """Pipeline stages."""

    stages: Stages
    """Number of stages."""
    per_rank: Count = 1
    """Stages of a rank. Ranks take turns; in `zbv` and `dualpipev` rank r has the r-th from each end."""
    schedule: ScheduleName | None = None
    """Order of forward and backward passes. Default: `1f1b`, with several stages a rank `interleaved_1f1b`."""
    starts: Annotated[list[str], Field(default_factory=list)]
    """First layer of each stage but the first, as in `layers.2`; beside an encoder, `decoder.2`. Default: by flops."""


class ContextDoc(Config):
    """Ranks that hold parts of every sample."""

    size: Count
    """Number of ranks."""
    attention: Literal["gather", "ulysses"] = "gather"
    """How attention sees whole rows: `gather` keys and values of all ranks, or by an all-to-all there and back have all
    of a row in some of the heads (`ulysses`, of DeepSpeed), where tp * size divides heads and kv_heads."""
    order: Literal["contiguous", "zigzag"] | None = None
    """Which tokens of a row a rank holds: one of as many parts, or two of twice as many, one from either end, so that
    causal attention is as much work for all. Default: zigzag where some attention has no other mask than the causal
    one, and nothing needs tokens in a row, as recurrent mixers, convolutions, segments and multi_token do."""


class EveryDoc(Config):
    """Some layers are recomputed in backward, or all but for some results: one of the two keys."""

    every: Count | None = None
    """Layers are recomputed whose number is a multiple of this."""
    save: Annotated[list[str], Field(min_length=1, max_length=256)] | None = None
    """Every layer is recomputed but for these results, as in `attention.core`."""


class LayoutDoc(Config):
    """How the model is spread over ranks."""

    tp: Count = 1
    """Ranks that share every weight (tensor parallel)."""
    sequence_parallel: bool = False
    """Split activations between blocks over tp, too."""
    dp: Count = 1
    """Ranks that hold different samples (FSDP2)."""
    ep: Count = 1
    """Of the ranks of dp, how many hold different experts (expert parallel), to which tokens go by all-to-all."""
    cp: Annotated[Annotated[Count, Tag("number")] | Annotated[ContextDoc, Tag("mapping")], by_kind] = 1
    """Ranks that hold parts of every sample (context parallel): keys and values are gathered over them."""
    pp: Annotated[Annotated[Stages, Tag("number")] | Annotated[PipelineDoc, Tag("mapping")], by_kind] = 1
    """Pipeline stages."""
    microbatches: Count | None = None
    """Parts of a batch: through the pipeline, or one after the other. Default: stages with pp, else 1."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Of activations and weights in use; parameters, gradients, sums of them over ranks, loss and norm are in fp32."""
    rules: Annotated[dict[str, Annotated[str, Field(max_length=64)]], Field(default_factory=dict, max_length=64)]
    """What splits an axis, by `axis` or `component.axis`: a mesh axis, or `none`, so that it is whole on every rank."""
    generate: bool = False
    """Write `generate` too, and the cache that it needs; of decoders alone, without pp, dp and sequence_parallel."""
    checkpoint: Annotated[
        Annotated[Literal["none", "full"], Tag("text")] | Annotated[EveryDoc, Tag("mapping")], by_kind
    ] = "none"
    """Activations recomputed in backward: of no layer, of every layer, or as the mapping says."""


class Document(Config):
    """A spec file."""

    specc: Annotated[int, Field(ge=1, le=1)]
    """Version of the language: 1."""
    name: str
    """Lower case letters, digits, dots, dashes and underscores; names the generated file."""
    description: Annotated[str, Field(max_length=2000)] | None = None
    """For the file's docstring."""
    d_model: Dim
    """Width of the residual stream."""
    vocab: Dim | None = None
    """Number of tokens; required where a stack reads tokens, or the head predicts them."""
    max_seq: Dim | None = None
    """Longest sequence; the size of learned positions. Default: 2048, or what the stem of one stack makes."""
    pad: Annotated[int, Field(ge=0)] | None = None
    """Token that fills up the encoder's input; nothing attends to it."""
    inputs: Annotated[list[Input], Field(default_factory=list, max_length=3)]
    """What a model of one stack takes beside tokens, each [batch, seq]: `positions`, where they are not those in a
    row; `segments` of a decoder, documents as runs of equal numbers, each on its own; `mask`, 0 for padding and 1 for
    real tokens, which see each other alone."""
    norm: ModelNorm = ModelNorm()
    residual: ResidualDoc = ResidualDoc()
    dropout: Rate = 0.0
    """Rate on what joins the residual stream, embeddings included."""
    drop_path: RateFormula = 0.0
    """Rate at which the output of a branch is left out for a whole sample (stochastic depth, Huang et al. 2016)."""
    embedding: EmbeddingDoc = EmbeddingDoc()
    head: Annotated[Annotated[Literal["none"], Tag("text")] | Annotated[HeadDoc, Tag("mapping")], by_kind] = HeadDoc()
    """Vectors to logits, classes or a vector; `none` ends after the final norm."""
    loss: LossDoc = LossDoc()
    init: InitDoc = InitDoc(parameters={})
    blocks: Annotated[dict[str, BlockDoc], Field(default_factory=dict, max_length=256)]
    """Blocks by name, for patterns."""
    encoder: StackDoc | None = None
    """Layers that read the source; alone, the model is an encoder."""
    decoder: StackDoc | None = None
    """Layers before the head. A model has a decoder, an encoder, or both."""
    components: Annotated[list[str], Field(default_factory=list, max_length=16)]
    """Python files beside the spec with components of your own. They are run, so only with `--allow-components`."""
    layout: LayoutDoc | None = None
    """The only layout."""
    layouts: Annotated[dict[str, LayoutDoc], Field(min_length=1, max_length=64)] | None = None
    """Several layouts by name, the default first."""
