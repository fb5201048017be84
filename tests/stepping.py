"""What a trainer does on real batches: some weights frozen, labels missing, rows short, gradients not finite.

`on_rank` runs all of it on one rank of a layout, or on one device; what both tell under one name must be equal.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from specc.verify.course import LR, SEED, whole
from specc.verify.run import fill, load_file

ROWS, SEQ = 8, 8
PAD = 0  # of an encoder's input
CPU = torch.device("cpu")
Told = dict[str, Tensor]


class Rank:
    """A file on this rank, and which rows of a batch are its own."""

    def __init__(self, source: str, weights: dict[str, Tensor], batch: tuple[Tensor, ...]):
        self.file: ModuleType = load_file(source, "file")
        self.weights, self.batch = weights, batch
        self.mesh: Any = self.file.device_mesh("cpu") if hasattr(self.file, "device_mesh") else None
        data = self.mesh is not None and "dp" in self.mesh.mesh_dim_names
        self.ranks, self.index = (self.mesh["dp"].size(), self.mesh.get_local_rank("dp")) if data else (1, 0)
        size = ROWS // self.ranks
        self.rows = slice(self.index * size, (self.index + 1) * size)

    def trainer(self) -> Any:
        """A new one, with the given weights."""
        lengths = dict.fromkeys(x.size(1) for x in self.batch)
        place = () if self.mesh is None else (self.mesh,)
        sizes = () if self.mesh is None else (ROWS // self.ranks, *lengths)
        made = self.file.Trainer(*place, CPU, *sizes, seed=SEED, lr=LR)
        self.fill(made.module)
        return made

    def fill(self, module: nn.Module) -> None:
        for name, p in module.named_parameters():
            fill(p, self.weights[name])

    def own(self) -> tuple[Tensor, ...]:
        return tuple(x[self.rows] for x in self.batch)


def weights(trainer: Any) -> Told:
    return {f"weight {name}": whole(p).clone() for name, p in trainer.module.named_parameters()}


def gradients(trainer: Any) -> Told:
    held = {name: p.grad for name, p in trainer.module.named_parameters() if p.grad is not None}
    return {f"gradient {name}": whole(grad).clone() for name, grad in held.items()}


def steps(rank: Rank, frozen: tuple[str, ...] = ()) -> Told:
    """Two steps without those weights."""
    trainer = rank.trainer()
    for name, p in trainer.module.named_parameters():
        p.requires_grad_(not name.startswith(frozen) if frozen else True)
    found: Told = {}
    for n in range(2):
        found[f"loss {n}"], found[f"norm {n}"] = trainer.step(*rank.own())
    return found | weights(trainer)


def masked(rank: Rank) -> Told:
    """No label at all: nothing changes."""
    trainer = rank.trainer()
    *inputs, labels = rank.own()
    loss, norm = trainer.step(*inputs, torch.full_like(labels, -100))
    return {"loss": loss, "norm": norm, **weights(trainer)}


def broken(rank: Rank) -> Told:
    """A gradient of one rank is infinite, or no number: nothing changes, and the next step is as ever."""
    trainer, found = rank.trainer(), Told()
    for value in (float("inf"), float("nan")):
        trainer.optimizer.zero_grad()
        trainer.forward_backward(*rank.own())
        if not dist.is_initialized() or dist.get_rank() == 0:
            grad = next(p.grad for p in trainer.module.parameters() if p.grad is not None)
            local = grad.to_local() if isinstance(grad, DTensor) else grad
            local.view(-1)[0] = value
        found[f"finite {value}"] = trainer.clip_gradients(1.0).isfinite().double()
        trainer.optimizer.step()
    found |= weights(trainer)
    found["loss"], found["norm"] = trainer.step(*rank.own())
    return found


def parts(rank: Rank, scale: float = 1.0) -> Told:
    """Two calls with unequal numbers of labels, by the number of both."""
    trainer, own = rank.trainer(), rank.own()
    count, half = rank.batch[-1].ne(-100).sum() / scale, ROWS // rank.ranks // 2
    values = [trainer.forward_backward(*(x[rows] for x in own), count) for rows in (slice(half), slice(half, None))]
    return {"loss": values[0] + values[1], **gradients(trainer), "norm": trainer.clip_gradients(1e9)}


def short(rank: Rank) -> Told:
    """The last data rank has a row and two tokens less; on one device these have no labels, or are padding."""
    trainer, own = rank.trainer(), rank.own()
    if rank.mesh is None:
        labels = rank.batch[-1].clone()
        labels[-1], labels[ROWS // 2 :, -2:] = -100, -100
        own = (*own[:-1], labels)
        if len(own) > 2:
            own = (own[0].clone(), *own[1:])
            own[0][ROWS // 2 :, -2:] = PAD
    elif rank.ranks == 1:
        labels = own[-1].clone()
        labels[ROWS // 2 :, -2:] = -100
        own = tuple(x[:-1] for x in (*own[:-1], labels))
    elif rank.index == 1:
        own = tuple(x[:-1, :-2] for x in own)
    value = trainer.forward_backward(*own)
    return {"loss": value, **gradients(trainer)}


def same(held: list[nn.Parameter], trainer: Any) -> bool:
    """Whether the module has those parameters, and no gathered ones in their place."""
    return all(a is b for a, b in zip(held, trainer.module.parameters(), strict=True))


def looks(rank: Rank) -> Told:
    """Evaluation and logits between steps see the weights of then."""
    trainer, own = rank.trainer(), rank.own()
    held = list(trainer.module.parameters())
    found = {"before": trainer.evaluate(*own)}
    found["loss 0"] = trainer.forward_backward(*own)
    trainer.predict(*own[:-1])
    found["amid"] = trainer.evaluate(*own)  # both leave parameters and gradients as they are
    found["held amid"] = torch.tensor(float(same(held, trainer)))
    found |= gradients(trainer)
    found["norm 0"] = trainer.clip_gradients(1.0)
    trainer.optimizer.step()
    found["between"] = trainer.evaluate(*own)
    found["loss 1"], found["norm 1"] = trainer.step(*own)
    logits = trainer.predict(*own[:-1])
    if logits is not None:
        found |= {f"row {row}": x for row, x in zip(range(ROWS)[rank.rows], logits, strict=True)}
        found |= {"finite": logits.isfinite().all().double()}
    for row in range(0, ROWS // rank.ranks, ROWS // 2):
        few = trainer.predict(*(x[row : row + 1, :3] for x in own[:-1]))
        if few is not None:
            found[f"few {rank.rows.start + row}"] = few[0]
    found["held"] = torch.tensor(float(same(held, trainer)))
    rank.fill(trainer.module)
    return found | {"again": trainer.evaluate(*own)}


SCENARIOS: dict[str, Callable[[Rank], Told]] = {
    "two steps": steps,
    "embedding frozen": lambda rank: steps(rank, ("embedding",)),
    "layer frozen": lambda rank: steps(rank, ("layers.0",)),
    "layers frozen": lambda rank: steps(rank, ("layers",)),
    "first stage frozen": lambda rank: steps(rank, ("embedding", "layers.0")),
    "no labels": masked,
    "not finite": broken,
    "two parts": parts,
    "scaled": lambda rank: parts(rank, 4096.0),
    "short": short,
    "evaluation": looks,
}


def on_rank(source: str, weights: dict[str, Tensor], batch: tuple[Tensor, ...], names: tuple[str, ...]) -> list[Told]:
    """What this rank tells in each scenario."""
    torch.set_default_dtype(torch.float64)
    rank = Rank(source, weights, batch)
    return [SCENARIOS[name](rank) for name in names]
