"""Several pipeline stages on a rank."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.pipelining import PipelineStage


class StagesOfRank(nn.Module):
    """Several stages as one module, in which everything has its name in the whole model."""

    def __init__(self, stages: Iterable[nn.Module]):
        super().__init__()
        self.stages = tuple(stages)  # so that they are no submodules
        stacks: dict[str, nn.ModuleDict] = {}
        for name, child in (pair for stage in self.stages for pair in stage.named_children()):
            if isinstance(child, nn.ModuleDict):
                stacks.setdefault(name, nn.ModuleDict()).update(dict(child.items()))
            self.add_module(name, stacks.get(name, child))

    def train(self, mode: bool = True) -> nn.Module:
        for stage in self.stages:
            stage.train(mode)
        return super().train(mode)


class MirroredStages(nn.Module):
    """Several stages as one module, in which everything has its name in the whole model.

    `copies`: weights of later stages that an earlier one holds too, each with that one.
    """

    def __init__(self, stages: Iterable[nn.Module]):
        super().__init__()
        self.stages, self.copies = tuple(stages), []  # a tuple, so that they are no submodules
        for stage in self.stages:
            for name, child in stage.named_children():
                self.add(self, name, child)

    def add(self, into: nn.Module, name: str, child: nn.Module) -> None:
        known = dict(into.named_children()).get(name)
        if known is None:
            into.add_module(name, nn.ModuleDict(dict(child.items())) if isinstance(child, nn.ModuleDict) else child)
        elif isinstance(child, nn.ModuleDict):
            for key, block in child.items():
                self.add(known, key, block)
        else:
            self.copies += zip(child.parameters(), known.parameters(), strict=True)

    def train(self, mode: bool = True) -> nn.Module:
        for stage in self.stages:
            stage.train(mode)
        return super().train(mode)


@contextmanager
def mirrored(copies: list) -> Iterator[None]:
    """Copies have the values of the weights that they repeat, and add their gradients to theirs."""
    with torch.no_grad():
        for copy, p in copies:
            copy.copy_(p)
            copy.requires_grad_(p.requires_grad)
    yield
    for copy, p in copies:
        if copy.grad is not None:
            p.grad = copy.grad if p.grad is None else p.grad + copy.grad
            copy.grad = None


class TurningStage(PipelineStage):
    """A stage whose neighbour may be on its rank: there torch hands on gradients in evaluation, too, which has none."""

    def get_local_bwd_output(self, mb_index: int) -> tuple[Tensor | None, ...]:
        return super().get_local_bwd_output(mb_index) if self.has_backward else ()

    def set_local_bwd_input(self, next_stage_bwd_outputs: tuple[Tensor | None, ...], mb_index: int) -> None:
        if self.has_backward:
            super().set_local_bwd_input(next_stage_bwd_outputs, mb_index)
