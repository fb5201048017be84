"""Kernels of tests/ports/mamba2.py, and what the interpreter computes for its ops."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.collectives import all_gather, exchange


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor, before: Tensor | None = None) -> Tensor:
    """x [batch, seq, channels], weight [channels, taps] -> as x: of each position and those before it.

    `before` [batch, taps - 1, channels] has the positions in front of x, which are zeros if there are none.
    """
    x = F.pad(x, (0, 0, weight.size(1) - 1, 0)) if before is None else torch.cat((before, x), 1)
    return F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, groups=len(weight)).transpose(1, 2)


def halo(x: Tensor, rows: int, cp: DeviceMesh) -> Tensor:
    """x [batch, seq/cp, channels], parts of sequences -> the positions in front of it [batch, rows, channels].

    They come from the ranks before this one, of more than one where parts are short; zeros stand before all.
    """
    x = x.transpose(0, 1)
    own, size, rank = len(x), cp.size(), cp.get_local_rank()
    needed = [min(max(rows - between * own, 0), own) for between in range(size)]  # by how many ranks stand between
    sent = [0] * (rank + 1) + needed[: size - 1 - rank]
    got = needed[:rank][::-1] + [0] * (size - rank)
    x = exchange(torch.cat([x[own - count :] for count in sent]), sent, got, cp)
    return F.pad(x, (0, 0, 0, 0, rows - len(x), 0)).transpose(0, 1)


def scanned(
    x: Tensor, dt: Tensor, b: Tensor, c: Tensor, a_log: Tensor, dt_bias: Tensor, chunk: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `scan` computes without `d`, from a state of zeros.

    -> that, the last state [batch, heads, head_dim, state], the log of the decay from the start to each position
    [batch, heads, seq], and what is read of states there [batch, heads, seq, state].
    """
    dt = F.softplus(dt + dt_bias).transpose(1, 2)
    b, c = (z.repeat_interleave(x.size(1) // z.size(1), 1) for z in (b, c))
    decay, u = -a_log.exp()[:, None] * dt, x * dt.unsqueeze(-1)
    state = x.new_zeros(*x.shape[:2], x.size(-1), b.size(-1))
    out: list[Tensor] = []
    for decays, inputs, keys, queries in zip(*(z.split(chunk, 2) for z in (decay, u, b, c)), strict=True):
        total = decays.cumsum(-1)
        seen = torch.ones(total.size(-1), total.size(-1), dtype=torch.bool, device=x.device).tril()
        between = (total.unsqueeze(-1) - total.unsqueeze(-2)).masked_fill(~seen, float("-inf")).exp()
        out.append((queries @ keys.mT * between) @ inputs + total.exp().unsqueeze(-1) * (queries @ state.mT))
        rest = (total[..., -1:] - total).exp().unsqueeze(-1)
        state = total[..., -1, None, None].exp() * state + (inputs * rest).mT @ keys
    return torch.cat(out, 2), state, decay.cumsum(-1), c


def scan(x: Tensor, dt: Tensor, b: Tensor, c: Tensor, a_log: Tensor, d: Tensor, dt_bias: Tensor, chunk: int) -> Tensor:
    """x [batch, heads, seq, head_dim], dt [batch, seq, heads], b and c [batch, groups, seq, state] -> as x.

    The state space of Mamba 2 (Dao and Gu 2024, section 6) in chunks: within one as attention, between them by states.
    """
    return scanned(x, dt, b, c, a_log, dt_bias, chunk)[0] + d[:, None, None] * x


def state_before(state: Tensor, decay: Tensor, cp: DeviceMesh) -> Tensor:
    """state [batch, heads, head_dim, state] and the log of the decay [batch, heads] of each rank's part of a sequence
    -> the state from which this rank's part starts."""
    joined = torch.cat((state.flatten(2), decay.unsqueeze(-1)), -1).unsqueeze(0)
    states, decays = all_gather(joined, cp).split([joined.size(-1) - 1, 1], -1)  # [cp, batch, heads, ...]
    rank, upto = cp.get_local_rank(), decays.cumsum(0)
    behind = torch.arange(cp.size(), device=state.device).view(-1, 1, 1, 1) >= rank
    since = (upto[rank - 1] - upto).masked_fill(behind, float("-inf")).exp()  # decay of the parts between
    return (since * states).sum(0).view_as(state)


def scan_of_part(
    x: Tensor,
    dt: Tensor,
    b: Tensor,
    c: Tensor,
    a_log: Tensor,
    d: Tensor,
    dt_bias: Tensor,
    chunk: int,
    cp: DeviceMesh,
) -> Tensor:
    """The same of this rank's part of the sequence."""
    y, state, decay, queries = scanned(x, dt, b, c, a_log, dt_bias, chunk)
    first = state_before(state, decay[..., -1], cp)
    return y + decay.exp().unsqueeze(-1) * (queries @ first.mT) + d[:, None, None] * x


FUNCTIONS = {"causal_conv": causal_conv, "scan": scan}
