"""Tiny models in the core form, for tests that start after the spec language."""

from __future__ import annotations

from specc.components.attention import Attention
from specc.components.cross_attention import CrossAttention
from specc.components.ffn import Ffn
from specc.components.heads import resolved
from specc.components.norm import Norm
from specc.components.rope import LinearScaling, Llama3Scaling, Rope
from specc.spec.core import Block, Branch, Embed, Head, Init, Model, Positions, Run, Stack, Sublayer

D_MODEL, VOCAB, MAX_SEQ, PAD = 32, 96, 64, 0
SINUSOIDS = Positions("sinusoidal", MAX_SEQ)
LLAMA3 = Llama3Scaling(
    kind="llama3", factor=8.0, low_freq=1.0, high_freq=4.0, original_seq=64
)  # with theta 100 every band occurs
INIT = Init("normal", 0.02, 0.02, depth_scaled=False)


def decoder_only(
    name: str,
    blocks: tuple[Block, ...],
    layers: int,
    embed: Embed,
    final_norm: Norm | None,
    *,
    head_bias: bool = False,
    init: Init = INIT,
    d_model: int = D_MODEL,
    vocab: int = VOCAB,
) -> Model:
    """One decoder stack."""
    stack = Stack("decoder", "layers", (Run(blocks, layers),), final_norm, ("decoder",))
    return Model(name, None, d_model, vocab, MAX_SEQ, None, embed, Head(d_model, head_bias), init, (stack,))


def sublayer(
    name: str, component: Attention | CrossAttention | Ffn, norm: Norm, *, post: bool = False, dropout: float = 0.0
) -> Sublayer:
    """x + component(norm(x)), or norm(x + component(x)) where post."""
    branch = Branch(name, component, ("block", name), pre=None if post else norm, dropout=dropout)
    return Sublayer((branch,), after=norm if post else None)


def gpt2(*, layers: int = 3, dropout: float = 0.0, tied: bool = True, vocab: int = VOCAB) -> Model:
    """Learned positions, layer norm first, biases, gelu_tanh, head tied to the embedding."""
    norm = Norm(kind="layer", eps=1e-2).resolved()
    attention = resolved(Attention(heads=4, bias=True, dropout=dropout), D_MODEL)
    ffn = Ffn(hidden=4 * D_MODEL, activation="gelu_tanh", bias=True)
    block = Block(
        "block",
        (sublayer("attention", attention, norm, dropout=dropout), sublayer("ffn", ffn, norm, dropout=dropout)),
        ("decoder", "block"),
    )
    embed = Embed(1.0, Positions("learned", MAX_SEQ), dropout, ("decoder", "head") if tied else ())
    init = Init("normal", 0.02, 0.02, depth_scaled=True)
    return decoder_only("tiny-gpt2", (block,), layers, embed, norm, init=init, vocab=vocab)


def llama_block(
    name: str = "block", scaling: Llama3Scaling | LinearScaling | None = LLAMA3, *, bias: bool = False, hidden: int = 48
) -> Block:
    """RMS norm first, grouped heads, rope, gated silu."""
    norm = Norm(kind="rms", eps=1e-2).resolved()
    attention = resolved(Attention(heads=4, kv_heads=2, bias=bias, rope=Rope(theta=100.0, scaling=scaling)), D_MODEL)
    ffn = Ffn(kind="gated", hidden=hidden, activation="silu", bias=bias)
    return Block(name, (sublayer("attention", attention, norm), sublayer("ffn", ffn, norm)), ("decoder", name))


def llama(
    *,
    layers: int = 3,
    tied: bool = False,
    scaling: Llama3Scaling | LinearScaling | None = LLAMA3,
    bias: bool = False,
    vocab: int = VOCAB,
    hidden: int = 48,
) -> Model:
    """Llama 3.1."""
    embed = Embed(1.0, None, 0.0, ("decoder", "head") if tied else ())
    norm = Norm(kind="rms", eps=1e-2).resolved()
    block = llama_block(scaling=scaling, bias=bias, hidden=hidden)
    return decoder_only("tiny-llama", (block,), layers, embed, norm, vocab=vocab)


def patterned(*, layers: int = 5) -> Model:
    """Two kinds of block in turn, of different rope, one with parallel branches: scales, layerscale, head bias."""
    norm = Norm(kind="rms", eps=1e-2).resolved()
    wide = llama_block("wide", LinearScaling(kind="linear", factor=4.0))
    attention = resolved(Attention(heads=4, rope=Rope(theta=50.0), scale=0.3), D_MODEL)
    parallel = Sublayer(
        (
            Branch("attention", attention, ("decoder", "narrow", 0), post=norm, layerscale=0.5),
            Branch("ffn", Ffn(hidden=40, activation="gelu"), ("decoder", "narrow", 1), in_scale=0.7, out_scale=1.3),
        ),
        norm=norm,
        base="normed",
        alpha=1.1,
        beta=0.9,
    )
    narrow = Block("narrow", (parallel,), ("decoder", "narrow"))
    return decoder_only("tiny-patterned", (wide, narrow), layers, Embed(2.0, None, 0.0, ()), norm, head_bias=True)


def transformer(
    *, layers: int = 2, dropout: float = 0.0, bias: bool = False, pad: int | None = PAD, tied: bool = True
) -> Model:
    """Vaswani et al. 2017: norms after the residual, sinusoids, one matrix for both embeddings and the head."""
    norm = Norm(kind="layer", eps=1e-2).resolved()
    ffn = Ffn(hidden=48, activation="relu", bias=bias, dropout=dropout)

    def block(role: str) -> Block:
        own = resolved(Attention(heads=4, causal=role == "decoder", bias=bias, dropout=dropout), D_MODEL)
        cross = resolved(CrossAttention(heads=4, bias=bias, dropout=dropout), D_MODEL)
        parts = [("attention", own), *([("cross_attention", cross)] if role == "decoder" else []), ("ffn", ffn)]
        sublayers = tuple(sublayer(name, part, norm, post=True, dropout=dropout) for name, part in parts)
        return Block("block", sublayers, (role, "block"))

    stacks = (
        Stack("encoder", "encoder", (Run((block("encoder"),), layers),), None, ("encoder",)),
        Stack("decoder", "decoder", (Run((block("decoder"),), layers),), None, ("decoder",)),
    )
    embed = Embed(D_MODEL**0.5, SINUSOIDS, dropout, ("encoder", "decoder", "head") if tied else ())
    init = Init("xavier", 0.02, D_MODEL**-0.5, depth_scaled=False)
    return Model("tiny-transformer", None, D_MODEL, VOCAB, MAX_SEQ, pad, embed, Head(D_MODEL), init, stacks)


MODELS = {
    "gpt2": gpt2(),
    "llama": llama(),
    "llama-tied": llama(tied=True, scaling=None),
    "patterned": patterned(),
    "transformer": transformer(),
}

SMALL = {
    "gpt2": gpt2(layers=1, dropout=0.1),
    "llama": llama(layers=1, tied=True, bias=True),
    "patterned": patterned(layers=2),
    "transformer": transformer(layers=1, dropout=0.1, bias=True),
}
"""As few layers as show every kind of op, for tests of many mutants."""
