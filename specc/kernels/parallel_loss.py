"""The loss of a language model whose vocabulary is split over a mesh axis."""

import torch
import torch.distributed._functional_collectives as fc
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from specc.kernels.collectives import all_reduce


def loss(logits: Tensor, labels: Tensor, scale: Tensor | float, vocab: int, tp: DeviceMesh) -> Tensor:
    """Sum of cross entropies at labels [batch, seq] other than -100, times scale; logits [batch, seq, vocab/tp]."""
    start = -(-vocab // tp.size()) * tp.get_local_rank()  # the last ranks have fewer rows where vocab is uneven
    logits = logits - fc.wait_tensor(fc.all_reduce(logits.detach().amax(-1), "max", tp)).unsqueeze(-1)
    own = labels.sub(start).unsqueeze(-1)
    mine = (own >= 0) & (own < logits.size(-1))
    correct = (logits.gather(-1, own.where(mine, 0)) * mine).squeeze(-1)
    total, correct = all_reduce(torch.stack((logits.exp().sum(-1), correct)), tp)
    return ((total.log() - correct) * labels.ne(-100)).sum() * scale
