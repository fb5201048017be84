"""The sizes of a plain decoder that has so many parameters: what `specc init` writes."""

from __future__ import annotations

from dataclasses import dataclass
from math import floor, log

WITHIN = 0.05
"""How far a count may be from what was asked for."""
RANKS = 8
"""tp that divides heads, kv_heads, the features of feed-forward layers and the vocabulary; so do 1, 2 and 4."""
VOCAB = 32768
SMALL_HEADS = 1e9  # parameters from which a head has 128 features, and below which 64
DEEP = 5e8  # below so many a layer is for 64 features of the stream, from there for 128
TIED = 2e9  # below so many one matrix embeds and predicts


@dataclass(frozen=True)
class Shape:
    """Of a decoder with norms of a weight, grouped attention and gated feed-forward layers, without biases."""

    d_model: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocab: int
    tied: bool

    @property
    def embeddings(self) -> int:
        """Parameters that embed and predict tokens."""
        return self.vocab * self.d_model * (1 if self.tied else 2)

    @property
    def layer(self) -> int:
        """Parameters of one."""
        projections = 2 * self.d_model * self.head_dim * (self.heads + self.kv_heads)  # q and o, k and v
        return projections + 3 * self.d_model * self.hidden + 2 * self.d_model

    @property
    def parameters(self) -> int:
        """In all, those that embed among them."""
        return self.embeddings + self.layers * self.layer + self.d_model


def shape_of(parameters: float, vocab: int = VOCAB) -> Shape | None:
    """The shape of about so many parameters; None where there is none within 5 %.

    Its layers are for 128 features of the stream each (64 of a small model), and heads are together as wide as the
    stream, as nearly as both can be: that they part evenly over 8 ranks comes first.
    """
    found = [shape for width in widths() if (shape := _of_width(width, parameters, vocab)) is not None]
    features = 64 if parameters < DEEP else 128

    def far(shape: Shape) -> float:
        depth, width = shape.layers * features / shape.d_model, shape.heads * shape.head_dim / shape.d_model
        return abs(log(depth)) + 2 * abs(log(width))  # layers are the easier to change

    return min(found, key=far, default=None)


def widths() -> tuple[int, ...]:
    """Multiples of what matrix units take at once; of large ones those that 8 ranks share in heads of 128."""
    return (*range(128, 1024, 128), *range(1024, 4096, 256), *range(4096, 65537, 1024))


def _of_width(d_model: int, parameters: float, vocab: int) -> Shape | None:
    """As many layers as come near; where several do, a number that pipeline stages divide."""
    head_dim = 64 if parameters < SMALL_HEADS else 128
    heads = RANKS * max(1, floor(d_model / head_dim / RANKS + 0.5))
    hidden = -(-8 * d_model // 3 // 256) * 256
    one = Shape(d_model, 1, heads, RANKS, head_dim, hidden, vocab, parameters < TIED)
    exact = (parameters - one.parameters + one.layer) / one.layer
    for step in (4, 2, 1):
        layers = step * floor(exact / step + 0.5)
        if layers > 0 and abs(one.parameters + (layers - 1) * one.layer - parameters) <= WITHIN * parameters:
            return Shape(d_model, layers, heads, RANKS, head_dim, hidden, vocab, one.tied)
    return None
