"""Peaks of pipeline stages with FSDP2: gradients reduced at the end of a step, in its last microbatch, or in every one.

    python -m benchmarks.stages [layers [d_model [seq]]]

torch's stages turn `set_requires_gradient_sync` off before every backward and reduce when all microbatches are through.
A hook on a stage's backward turns it on again, by public setters of FSDP2, so that each block is reduced when its
backward is done. Bytes are those of living storages on the CPU, in the second step up to its clipping.
"""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from specc.emit import emit
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.core import Layout
from specc.verify.launch import run_ranks
from specc.verify.run import load_file

TEXT = """
specc: 1
name: stages
d_model: {d_model}
vocab: 256
norm: {{kind: rms, eps: 1e-5}}
decoder:
  layers: {layers}
  block:
    - attention: {{heads: 4, rope: {{theta: 10000}}}}
    - ffn: {{kind: gated, hidden: {hidden}}}
layout: {{dp: 2, pp: {{stages: 2, schedule: 1f1b}}, microbatches: {parts}, checkpoint: {checkpoint}}}
"""
WAYS = ("at the end", "in the last", "in every one")


@dataclass(frozen=True)
class Peak:
    """Of a rank: its stage, bytes of its whole weights, the most that a step makes, and its loss."""

    stage: int
    weights: int
    peak: int
    loss: float


class Living(TorchDispatchMode):
    """Bytes of living storages that ops gave or filled while it is on; FSDP2 resizes its own between ops."""

    def __init__(self) -> None:
        super().__init__()
        self.storages: weakref.WeakValueDictionary[int, torch.UntypedStorage] = weakref.WeakValueDictionary()
        self.peak = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if any(issubclass(kind, DTensor) for kind in types):
            return NotImplemented
        result = op(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and leaf.device.type == "cpu":
                self.storages[leaf.untyped_storage()._cdata] = leaf.untyped_storage()
        self.peak = max(self.peak, sum(storage.nbytes() for storage in self.storages.values()))
        return result


def measured(source: str, way: str, parts: int, seq: int) -> Peak:
    """Of this rank, with a sample a microbatch."""
    file = load_file(source, "file")
    trainer = file.Trainer(file.device_mesh("cpu"), torch.device("cpu"), parts, seq, seed=0, lr=1e-3)
    module, done = trainer.module, 0

    def reduce(module: nn.Module, gradients: object) -> None:
        nonlocal done
        done += 1
        if way == "in every one" or done % parts == 0:
            assert isinstance(module, FSDPModule)
            module.set_requires_gradient_sync(True)
            module.set_is_last_backward(True)

    if way != "at the end":
        module.register_full_backward_pre_hook(reduce)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    generator = torch.Generator().manual_seed(dist.get_rank() % 2)
    tokens = torch.randint(256, (parts, seq), generator=generator)
    trainer.step(tokens, tokens)
    trainer.optimizer.zero_grad()
    with Living() as living:
        loss = trainer.forward_backward(tokens, tokens)
    return Peak(trainer.index, weights, living.peak, loss.item())


def main(layers: int = 8, d_model: int = 128, seq: int = 256) -> None:
    print(f"torch {torch.__version__}, dp 2, pp 2, 1f1b: {layers} layers of width {d_model}, {seq} tokens a microbatch")
    print("most that forward and backward of a stage hold beside its shards, in its whole weights; gradients reduced")
    print(f"{'checkpoint':10} {'microbatches':>12} {'stage':>5}  " + "  ".join(f"{way:>12}" for way in WAYS))
    for checkpoint in ("none", "full"):
        for parts in (2, 4, 8):
            text = TEXT.format(layers=layers, d_model=d_model, hidden=3 * d_model, parts=parts, checkpoint=checkpoint)
            spec = load(Source("stages.yaml", text))
            assert isinstance(spec, Spec), spec
            layout: Layout = spec.layout()
            source = emit(spec, layout).source
            found = [run_ranks(4, measured, source, way, parts, seq) for way in WAYS]
            assert len({round(peak.loss, 5) for peaks in found for peak in peaks}) == 1
            for rank in (0, 2):
                cells = "  ".join(f"{peaks[rank].peak / peaks[rank].weights:12.3f}" for peaks in found)
                print(f"{checkpoint:10} {parts:12} {found[0][rank].stage:5}  {cells}", flush=True)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
