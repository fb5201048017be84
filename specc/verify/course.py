"""What is asked of a trainer, alone or on many ranks: each of its methods, on batches as people have them.

`expected` says the same of the interpreted model, with the step written out by torch alone. Both give values by
relation and by name, so that comparing them needs to know nothing of either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.utils._pytree import tree_map_only

LR, MAX_NORM, SEED = 1e-2, 1.0, 5

Values = dict[str, Tensor]
Found = dict[str, Values]
"""Relation -> name -> value. On a rank of several, parameters of its stage alone, logits on the last stage alone."""


@dataclass
class Step:
    """What a step gave, by global parameter name. `norm` is that of all gradients before clipping."""

    loss: float
    norm: float
    outputs: tuple[Tensor, ...]
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


NONE = (-100, torch.nan)
"""What stands where there is no label: of classes, and of numbers."""


@dataclass(frozen=True)
class Batch:
    """Inputs of the model in order, and labels; all ranks' together."""

    inputs: tuple[Tensor, ...]
    labels: Tensor

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return (*self.inputs, self.labels)

    @property
    def unlabelled(self) -> Batch:
        return replace(self, labels=torch.full_like(self.labels, NONE[self.labels.is_floating_point()]))

    @property
    def count(self) -> Tensor:
        """Labels that count."""
        return (~self.labels.isnan() if self.labels.is_floating_point() else self.labels.ne(NONE[0])).sum()


@dataclass(frozen=True)
class Given:
    """What a course starts from: weights, two batches of one shape, and the parameter that one step leaves alone.

    `dropout`: whether a layout draws the masks of one device, so that a step that drops can be compared, too.
    """

    weights: dict[str, Tensor]
    first: Batch
    second: Batch
    frozen: str
    dropout: bool = False

    @property
    def count(self) -> Tensor:
        """Labels of both batches, of all ranks."""
        return self.first.count + self.second.count


Own = Callable[[Tensor], Tensor]
"""What a rank is fed of a tensor [batch, tokens]."""
Fill = Callable[[Tensor, Tensor], None]
"""Copies a whole weight into a parameter of a rank."""


def course(make: Callable[[], Any], given: Given, own: Own, fill: Fill) -> Found:
    """What trainers made by `make` give.

    Each step starts from the weights given and an optimizer that has seen none, for errors grow over steps of AdamW.
    """
    first, second, empty = (
        tuple(map(own, batch.tensors)) for batch in (given.first, given.second, given.second.unlabelled)
    )
    trainer = make()
    module: nn.Module = trainer.module.eval()

    def restart() -> None:
        trainer.optimizer.state.clear()
        for name, p in state(module):
            fill(p, given.weights[name])

    restart()
    found: Found = {"loss": _numbers(loss=trainer.forward_backward(*first)), "gradients": _gradients(module)}
    found["gradient norm"] = _numbers(norm=trainer.clip_gradients(MAX_NORM))
    trainer.optimizer.step()
    found["weights after an AdamW step"] = _weights(module)
    found["settings of the optimizer"] = _settings(trainer.optimizer, module)
    restart()  # but for gradients, which a step must put away
    found["Trainer.step"] = _stepped(trainer.step(*second), module)
    found["Trainer.step without labels"] = _stepped(trainer.step(*empty), module)
    restart()
    trainer.optimizer.zero_grad()
    for batch in (first, second):
        trainer.forward_backward(*batch, count=given.count)
    found["gradients of two batches"] = _gradients(module)
    total, labels = trainer.evaluate(*second)
    found["evaluate"] = _numbers(loss=total, labels=labels)
    logits = trainer.predict(*second[:-1])
    found["predict"] = {} if logits is None else {"logits": logits}
    if given.dropout:
        module.train()
        trainer.optimizer.zero_grad()
        torch.manual_seed(SEED)
        found["dropout"] = _numbers(loss=trainer.forward_backward(*first)) | _gradients(module)
    trainer = make()  # what is frozen is so from the start: FSDP2 asks when it first gathers
    module = trainer.module.eval()
    for name, p in module.named_parameters():
        p.requires_grad_(name != given.frozen)
    restart()
    found["Trainer.step, a parameter frozen"] = _stepped(trainer.step(*second), module)
    return found


def expected(module: nn.Module, loss: Callable[..., Tensor], given: Given) -> Found:
    """The same of a plain module; `loss` takes what it returns, labels and a scale."""
    labels = given.second.count
    (one,) = _fresh(module, loss, given, given.first)
    two, empty = _fresh(module, loss, given, given.second, given.second.unlabelled)
    found: Found = {
        "loss": _numbers(loss=one.loss),
        "gradients": one.gradients,
        "gradient norm": _numbers(norm=one.norm),
        "weights after an AdamW step": one.weights,
        "settings of the optimizer": _settings(adamw(module), module),
        "Trainer.step": _numbers(loss=two.loss, norm=two.norm) | two.weights,
        "Trainer.step without labels": _numbers(loss=empty.loss, norm=empty.norm) | empty.weights,
        "evaluate": _numbers(loss=two.loss * labels, labels=labels),
        "predict": {"logits": two.outputs[0]},
    }
    both = zip(*(step.gradients.values() for step in (one, two)), strict=True)
    shares = [batch.count / given.count for batch in (given.first, given.second)]
    summed = (a * shares[0] + b * shares[1] for a, b in both)
    found["gradients of two batches"] = dict(zip(one.gradients, summed, strict=True))
    if given.dropout:
        torch.manual_seed(SEED)
        (dropped,) = _fresh(module.train(), loss, given, given.first)
        found["dropout"] = _numbers(loss=dropped.loss) | dropped.gradients
        module.eval()
    module.get_parameter(given.frozen).requires_grad_(False)
    (frozen,) = _fresh(module, loss, given, given.second)
    found["Trainer.step, a parameter frozen"] = _numbers(loss=frozen.loss, norm=frozen.norm) | frozen.weights
    module.requires_grad_(True)
    return found


def _fresh(module: nn.Module, loss: Callable[..., Tensor], given: Given, *batches: Batch) -> list[Step]:
    """Steps that follow each other, from the weights given."""
    module.load_state_dict(given.weights)
    optimizer = adamw(module)
    return [one_device(module, loss, batch, optimizer) for batch in batches]


def one_device(
    module: nn.Module, loss: Callable[..., Tensor], batch: Batch, optimizer: torch.optim.Optimizer | None = None
) -> Step:
    """A step of a plain module, with clipping and AdamW written out by torch alone; no update for a norm of 0."""
    optimizer = optimizer or adamw(module)
    module.zero_grad()
    outputs = module(*batch.inputs)
    value = loss(outputs, batch.labels, 1 / batch.count.clamp(min=1))
    value.backward()
    gradients = _gradients(module)
    norm = nn.utils.clip_grad_norm_(module.parameters(), MAX_NORM)
    if norm > 0:
        optimizer.step()
    shown = tree_map_only(Tensor, Tensor.detach, outputs)
    shown = shown if isinstance(shown, tuple) else (shown,)
    return Step(value.item(), norm.item(), shown, gradients, _weights(module))


def adamw(module: nn.Module) -> torch.optim.AdamW:
    """What `Trainer` has: decay on matrices that are no embedding."""
    named = dict(module.named_parameters())
    decays = [name for name, p in named.items() if p.ndim > 1 and not name.endswith("embedding.weight")]
    groups = [
        {"params": [p for name, p in named.items() if name in decays], "weight_decay": 0.1},
        {"params": [p for name, p in named.items() if name not in decays], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=LR, betas=(0.9, 0.95), eps=1e-8)


def state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters, and buffers that are saved with them."""
    yield from module.named_parameters()
    yield from module.named_buffers()


@torch.no_grad()
def whole(p: Tensor) -> Tensor:
    """A parameter or gradient of all ranks."""
    return p.full_tensor() if isinstance(p, DTensor) else p.detach()


def _settings(optimizer: torch.optim.Optimizer, module: nn.Module) -> Values:
    """Of each parameter: learning rate, betas, eps, decay; one step from the start does not tell betas."""
    names = {p: name for name, p in module.named_parameters()}
    rows: Values = {}
    for group in optimizer.param_groups:
        numbers = (group["lr"], *group["betas"], group["eps"], group["weight_decay"])
        rows |= {names[p]: torch.tensor(numbers, dtype=torch.float64) for p in group["params"]}
    return rows


def _stepped(answer: tuple[Tensor, Tensor], module: nn.Module) -> Values:
    return _numbers(loss=answer[0], norm=answer[1]) | _weights(module)


def _gradients(module: nn.Module) -> Values:
    """Those of all parameters that want one. Raises ValueError naming one that got none."""
    wanted = {name: p for name, p in module.named_parameters() if p.requires_grad}
    for name, p in wanted.items():
        if p.grad is None:
            raise ValueError(f"{name} got no gradient")
    return {name: whole(p.grad).clone() for name, p in wanted.items() if p.grad is not None}


def _weights(module: nn.Module) -> Values:
    return {name: whole(p).clone() for name, p in state(module)}


def _numbers(**values: Tensor | float) -> Values:
    return {name: torch.as_tensor(value, dtype=torch.float64).detach() for name, value in values.items()}
