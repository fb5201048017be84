"""A convolution of each channel over positions and those before them."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.collectives import exchange


def causal_conv(x: Tensor, weight: Tensor, bias: Tensor | None, before: Tensor | None = None) -> Tensor:
    """x [batch, seq, channels], weight [channels, taps] -> as x: of each position and those before it.

    `before` [batch, taps - 1, channels] has the positions in front of x, which are zeros if there are none.
    """
    x = F.pad(x, (0, 0, weight.size(1) - 1, 0)) if before is None else torch.cat((before, x), 1)
    return F.conv1d(x.transpose(1, 2), weight.unsqueeze(1), bias, groups=len(weight)).transpose(1, 2)


def document_conv(x: Tensor, weight: Tensor, bias: Tensor | None, first: Tensor) -> Tensor:
    """x [batch, seq, channels], weight [channels, taps] -> as x: of each position and those before it in its document.

    first [batch, seq] is where the document of each position starts in its row.
    """
    taps, seq = weight.size(1), x.size(1)
    own = torch.arange(seq, device=x.device) - first
    x, y = F.pad(x, (0, 0, taps - 1, 0)), x * weight[:, -1]
    for back in range(1, taps):
        start = taps - 1 - back
        y = y + x[:, start : start + seq] * (own >= back).unsqueeze(-1) * weight[:, start]
    return y if bias is None else y + bias


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
