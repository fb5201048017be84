"""Rows whose parts ranks hold: this rank's part, whole rows again, and causal attention of a part."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.attention.bias import CausalBias, causal_lower_right


def part_of_rows(x: Tensor, cp: DeviceMesh) -> Tensor:
    """This rank's part of whole rows [rows, length], in the order of ranks."""
    return x.chunk(cp.size(), 1)[cp.get_local_rank()].contiguous()


def whole_rows(x: Tensor, cp: DeviceMesh) -> Tensor:
    """Whole rows [rows, length, ...] of the parts that ranks hold."""
    parts = [torch.empty_like(x) for _ in range(cp.size())]
    dist.all_gather(parts, x.contiguous(), cp.get_group())
    return torch.cat(parts, 1)


def chunks_of_rows(x: Tensor, cp: DeviceMesh) -> Tensor:
    """This rank's part of whole rows [rows, length]: of 2n chunks, rank r of n holds r and 2n - 1 - r."""
    chunks, rank = x.chunk(2 * cp.size(), 1), cp.get_local_rank()
    return torch.cat((chunks[rank], chunks[-1 - rank]), 1)


def rows_of_chunks(x: Tensor, cp: DeviceMesh) -> Tensor:
    """Whole rows [rows, length, ...] of the chunks that ranks hold."""
    return in_order(whole_rows(x, cp), 1, cp)


def zigzag(x: Tensor, dim: int, cp: DeviceMesh) -> Tensor:
    """What whole rows have along `dim`, in the order in which ranks hold its chunks."""
    chunks, n = x.chunk(2 * cp.size(), dim), cp.size()
    return torch.cat([chunks[at] for rank in range(n) for at in (rank, 2 * n - 1 - rank)], dim)


def in_order(x: Tensor, dim: int, cp: DeviceMesh) -> Tensor:
    """What zigzag was given."""
    chunks = x.chunk(2 * cp.size(), dim)
    return torch.cat((*chunks[::2], *chunks[::-2]), dim)


def causal_part(positions: Tensor, cp: DeviceMesh) -> CausalBias:
    """What this rank's queries [seq/cp], which stand in a row, see: the keys up to each."""
    size = len(positions)
    return causal_lower_right(size, size * (cp.get_local_rank() + 1))


def causal_chunks(positions: Tensor, cp: DeviceMesh) -> tuple[CausalBias, CausalBias]:
    """What each of the two chunks of this rank's queries [seq/cp] sees: the keys up to each query."""
    size, rank = len(positions) // 2, cp.get_local_rank()
    return causal_lower_right(size, size * (rank + 1)), causal_lower_right(size, size * (2 * cp.size() - rank))


def attention_of_part(
    q: Tensor, k: Tensor, v: Tensor, mask: CausalBias, dropout_p=0.0, scale: float | None = None, enable_gqa=False
) -> Tensor:
    """Of queries [batch, heads, queries, head_dim] that are part of rows; k, v [batch, kv_heads, seq, head_dim]."""
    k, v = k[:, :, : mask.seq_len_kv], v[:, :, : mask.seq_len_kv]
    return F.scaled_dot_product_attention(q, k, v, mask, dropout_p, scale=scale, enable_gqa=enable_gqa)


def attention_of_chunks(
    q: Tensor, k: Tensor, v: Tensor, early: CausalBias, late: CausalBias, cp: DeviceMesh, **options
) -> Tensor:
    """Of queries [batch, heads, seq/cp, head_dim], two chunks; k, v [batch, kv_heads, seq, head_dim] in their order."""
    k, v = in_order(k, 2, cp), in_order(v, 2, cp)
    parts = zip(q.chunk(2, 2), (early, late), strict=True)
    return torch.cat([attention_of_part(part, k, v, mask, **options) for part, mask in parts], 2)
