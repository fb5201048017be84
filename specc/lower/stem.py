"""What a stack reads in place of tokens, and the vectors that stand in front of it."""

from __future__ import annotations

from specc.ir.op import Ref
from specc.ir.types import Axis
from specc.lower.builder import Builder
from specc.spec.core import Embed, Stem


def pixels(b: Builder, of: Stem, name: str) -> Ref:
    """The input of images [batch, channels, height, width]."""
    sides = (Axis("height", of.image), Axis("width", of.image))
    return b.op("input", name=name, hint=name, axes=("batch", Axis("channels", of.channels), *sides), dtype="float")


def patches(b: Builder, of: Stem, images: Ref, seq: str, width: Axis, prefix: str) -> Ref:
    """images [batch, channels, height, width] -> [batch, seq, d_model]: a linear of the pixels of each patch.

    It is a convolution whose kernel is as wide as its step, with the weight [d_model, channels * patch * patch].
    """
    sides = (("channels", of.channels), ("rows", of.patch), ("columns", of.patch))
    inner = Axis("pixels", of.channels * of.patch**2, factors=sides)
    axes = (Axis(seq, of.tokens), inner)
    x = b.op("patches", images, name=f"{prefix}patches", hint="patches", patch=of.patch, axes=axes)
    return b.linear(x, f"{prefix}stem", width, inner, of.bias)


def class_token(b: Builder, of: Embed, x: Ref, width: Axis, prefix: str) -> Ref:
    """x with a vector in front, the same for all samples."""
    return _in_front(b, x, "class", 1, width, prefix, at=0) if of.class_token else x


def registers(b: Builder, of: Embed, x: Ref, width: Axis, prefix: str) -> Ref:
    """x with vectors behind the class token, if there is one."""
    return _in_front(b, x, "register", of.registers, width, prefix, at=int(of.class_token)) if of.registers else x


def _in_front(b: Builder, x: Ref, what: str, count: int, width: Axis, prefix: str, at: int) -> Ref:
    leaf = f"{prefix}{what}_embedding"
    param = b.param(leaf, "weight", (Axis("count", count), width), b.table_init(), "own_tokens")
    return b.op("own_tokens", x, name=leaf, params=(param,), at=at)
