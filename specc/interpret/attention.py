"""What the ops of attention compute: heads, rotations, and the core, by kernel or written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from specc.ir.types import Axis
from specc.kernels import rope as kernels
from specc.kernels.temperature import apply_temperature, temperatures

SCALINGS: dict[str, Callable[..., Tensor]] = {
    "": kernels.rope_table,
    "linear": kernels.linear_rope_table,
    "llama3": kernels.llama3_rope_table,
    "dynamic": kernels.dynamic_rope_table,
    "yarn": kernels.yarn_rope_table,
    "longrope": kernels.longrope_rope_table,
    "proportional": kernels.proportional_rope_table,
}
"""Kernels of tables by the kind of scaling."""


def split(x: Tensor, *, heads: int, first: str = "batch") -> Tensor:
    """x [batch, seq, heads*head_dim], or tokens first -> [batch, heads, seq, head_dim]"""
    x = x.transpose(0, 1) if first == "tokens" else x
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(x: Tensor, *, first: str = "batch") -> Tensor:
    """x [batch, heads, seq, head_dim] -> [batch, seq, heads*head_dim], or tokens first"""
    x = x.transpose(1, 2).flatten(2)
    return x.transpose(0, 1) if first == "tokens" else x


def own_heads(x: Tensor, *, heads: int, times: int, ranks: int) -> Tensor:
    """x [batch, heads, seq, head_dim] or [..., heads*head_dim] -> the same with each head so many times"""
    return _repeated(x, heads, times)


@fx.wrap
def _repeated(x: Tensor, heads: int, times: int) -> Tensor:
    if x.dim() == 4:
        return x.repeat_interleave(times, dim=1)
    return x.unflatten(-1, (heads, -1)).repeat_interleave(times, dim=-2).flatten(-2)


def rope(x: Tensor, table: Tensor, *, adjacent: bool = False) -> Tensor:
    """x [batch, heads, seq, head_dim] -> the same; as many first features are rotated as the table has"""
    return _rotated(x, table, adjacent)


@fx.wrap  # it looks at sizes
def _rotated(x: Tensor, table: Tensor, adjacent: bool) -> Tensor:
    turn = kernels.apply_adjacent_rope if adjacent else kernels.apply_rope
    if table.size(-1) == x.size(-1):
        return turn(x, table)
    turned, kept = x.tensor_split((table.size(-1),), dim=-1)
    return torch.cat((turn(turned, table), kept), dim=-1)


def temper(x: Tensor, table: Tensor) -> Tensor:
    """x [batch, heads, seq, head_dim], table [..., seq, 1] -> as x"""
    return apply_temperature(x, table)


def head_scale(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x [batch, heads, seq, head_dim], parameters [heads, head_dim] -> as x"""
    x = x * weight.unsqueeze(1)
    return x if bias is None else x + bias.unsqueeze(1)


def part(x: Tensor, *, axes: tuple[Axis, ...]) -> tuple[Tensor, ...]:
    """x [..., a+b] -> [..., a], [..., b]"""
    return x.split([axis.length for axis in axes], dim=-1)


def join(x: Tensor, y: Tensor) -> Tensor:
    """x [batch, heads, seq, a], y [batch, heads or 1, seq, b] -> [batch, heads, seq, a+b]"""
    return torch.cat((x, y.expand(-1, x.size(1), -1, -1)), dim=-1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None = None,
    *,
    causal: bool,
    scale: float | None,
    dropout: float,
    grouped: bool,
    training: bool = False,
) -> Tensor:
    """q [batch, heads, seq, head_dim], k and v [batch, kv_heads, keys, head_dim], mask [..., seq, keys] -> as q"""
    rate = dropout if training else 0.0
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, dropout_p=rate, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *more: Tensor,
    masked: bool,
    scale: float,
    softcap: float | None,
    dropout: float,
    training: bool = False,
) -> Tensor:
    """As attention; `more`: a mask where it is `masked`, then scores of sinks [heads] where there are any"""
    groups = q.size(1) // k.size(1)
    k, v = (x.repeat_interleave(groups, dim=1) for x in (k, v))
    factor = scale if softcap is None else scale / softcap
    scores = torch.einsum("bhqd,bhkd->bhqk", q * factor, k)
    if softcap is not None:
        scores = scores.tanh() * softcap
    mask, *sinks = more if masked else (None, *more)
    if mask is not None:
        hidden = torch.finfo(scores.dtype).min
        scores = scores + mask if mask.is_floating_point() else torch.where(mask, scores, hidden)
    if sinks:
        scores = torch.cat((scores, sinks[0].view(1, -1, 1, 1).expand(*scores.shape[:-1], 1)), dim=-1)
    weights = scores.softmax(-1)[..., : k.size(2)]
    return torch.einsum("bhqk,bhkd->bhqd", F.dropout(weights, dropout, training), v)


def rope_tables(
    positions: Tensor, *, rows: bool, head_dim: int, theta: float, scaling: tuple[Any, ...] | None = None
) -> Tensor:
    """positions [seq] -> [2, seq, head_dim], or of rows [batch, seq] -> [2, batch, 1, seq, head_dim]"""
    positions = positions.unsqueeze(1) if rows else positions
    kind, *numbers = scaling or ("",)
    return SCALINGS[str(kind)](positions, head_dim, theta, *numbers)


def temperature(positions: Tensor, *, rows: bool, floor: int, scale: float, offset: int) -> Tensor:
    """positions [seq] -> [seq, 1], or of rows [batch, seq] -> [batch, 1, seq, 1]"""
    return temperatures(positions.unsqueeze(1) if rows else positions, floor, scale, offset)


TABLE: dict[str, Callable[..., Any]] = {
    "split": split,
    "merge": merge,
    "own_heads": own_heads,
    "rope": rope,
    "temper": temper,
    "head_scale": head_scale,
    "part": part,
    "join": join,
    "attention": attention,
    "plain_attention": plain_attention,
    "rope_table": rope_tables,
    "temperature": temperature,
}
