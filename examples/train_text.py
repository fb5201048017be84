"""Train a generated file on English text, byte by byte: the topics of `help()`, which every Python ships.

    specc build specs/examples/llama-text.yaml -o /tmp/generated
    torchrun --nproc-per-node 4 examples/train_text.py /tmp/generated/llama_text.py

A file with a mesh runs under torchrun on as many ranks as its layout has; one without a mesh, in one process.
A decoder learns to tell the next byte. An encoder-decoder reads text with masked words and learns to write it in full.
The vocabulary needs 256 ids, and 0 must be the padding of an encoder.

    torchrun --nproc-per-node 4 examples/train_text.py /tmp/generated/llama_text.py --every 500 --save /tmp/saved
    python examples/train_text.py /tmp/generated/llama_text_single.py --resume /tmp/saved/step-500

tells the held-out loss every 500 steps and saves there. What is saved goes on in any layout, with the same samples and
the same rates, if --steps and the other options are the same too.
"""

from __future__ import annotations

import argparse
import importlib.util
import inspect
import json
import os
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from pydoc_data.topics import topics
from types import ModuleType
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
import torch.nn.functional as F
from torch import Tensor
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_state_dict, set_state_dict

PAD, MASK, START, NO_LABEL = 0, 1, 2, -100  # the text has no bytes 0, 1 and 2
MASKED_WORDS = 0.3  # share of all words
NAMED = StateDictOptions(flatten_optimizer_state_dict=True)  # by the names of parameters, which every layout shares


def english() -> tuple[Tensor, Tensor]:
    """The text [bytes], and for each byte the number of the word that it is in, from 1, or 0 between words."""
    raw = " ".join(" ".join(topics[name] for name in sorted(topics)).split()).encode()
    words = torch.zeros(len(raw), dtype=torch.int64)
    for number, word in enumerate(re.finditer(rb"[A-Za-z]+", raw), start=1):
        words[word.start() : word.end()] = number
    return torch.tensor(list(raw)), words


def batches(text: Tensor, words: Tensor, pair: bool, batch: int, seq: int, seed: int) -> Iterator[tuple[Tensor, ...]]:
    """Without end, tokens and labels [batch, seq], or for a pair source, target and labels; the same for a seed."""
    rng = torch.Generator().manual_seed(seed)
    while True:
        at = torch.randint(len(text) - seq, (batch, 1), generator=rng) + torch.arange(seq)
        if pair:
            masked = torch.rand(int(words.max()) + 1, generator=rng).lt(MASKED_WORDS)[words[at]] & words[at].ne(0)
            beyond = torch.arange(seq) >= torch.randint(seq // 2, seq + 1, (batch, 1), generator=rng)  # its end
            source = text[at].masked_fill(masked, MASK).masked_fill(beyond, PAD)
            target = F.pad(text[at][:, :-1], (1, 0), value=START).masked_fill(beyond, PAD)
            yield source, target, text[at].masked_fill(beyond, NO_LABEL)
        else:
            yield text[at], text[at + 1]


def guess(told: Tensor) -> float:
    """Loss in nats of telling each of these bytes by nothing but how frequent it is."""
    share = torch.bincount(told) / len(told)
    return -torch.xlogy(share, share).sum().item()


def rate(done: int, steps: int) -> float:
    """Share of the learning rate in the step after these: up in a tenth of the steps, then down to 0."""
    return min(10 * (done + 1) / steps, 1 - done / steps)


def build(file: ModuleType, device: torch.device, args: argparse.Namespace, seed: int) -> tuple[Any, bool, slice]:
    """A trainer, whether it takes pairs, and which samples of a batch are this rank's."""
    wanted = inspect.signature(file.Trainer).parameters
    pair = "source" in inspect.signature(file.Trainer.step).parameters
    known = {"device": device, "seed": seed, "lr": args.lr}
    if "mesh" not in wanted:
        return file.Trainer(**known), pair, slice(None)
    mesh = file.device_mesh(device.type)
    rank, ranks = (mesh.get_local_rank("dp"), mesh["dp"].size()) if "dp" in mesh.mesh_dim_names else (0, 1)
    parts, size = ranks * getattr(file, "MICROBATCHES", 1), args.batch // ranks
    if args.batch % parts:
        raise SystemExit(f"--batch must be a multiple of {parts}: data ranks times microbatches")
    known |= {"mesh": mesh, "batch": size, **dict.fromkeys(("seq", "source", "target"), args.seq)}
    return file.Trainer(**{name: known[name] for name in wanted}), pair, slice(rank * size, (rank + 1) * size)


def save(trainer: Any, done: int, folder: Path) -> None:
    """Every rank writes what it holds."""
    model, optimizer = get_state_dict(trainer.module, trainer.optimizer, options=NAMED)
    dcp.save({"model": model, "optimizer": optimizer, "done": torch.tensor(done)}, checkpoint_id=folder)


def saved_steps(folder: Path) -> int:
    """How many steps were done. Raises SystemExit where nothing was saved, or not to its end."""
    if not (folder / ".metadata").exists():  # written last
        raise SystemExit(f"{folder} holds no checkpoint, or one whose writing was broken off")
    done = torch.tensor(0)
    dcp.load({"done": done}, checkpoint_id=folder)
    return int(done)


def load(trainer: Any, folder: Path) -> None:
    """Every rank reads what it needs, whatever the layout it was saved from."""
    model, optimizer = get_state_dict(trainer.module, trainer.optimizer, options=NAMED)  # the right shapes, read into
    dcp.load({"model": model, "optimizer": optimizer}, checkpoint_id=folder)
    held = (trainer.module, trainer.optimizer)
    set_state_dict(*held, model_state_dict=model, optim_state_dict=optimizer, options=NAMED)


def held_out(trainer: Any, pair: bool, data: Iterator[tuple[Tensor, ...]]) -> dict[str, float]:
    """The mean losses of these batches, in nats, by kind of byte."""
    sums: dict[str, Tensor] = {}  # of losses, and numbers of labels
    for *inputs, labels in data:
        kinds = {"visible": inputs[0] != MASK, "masked": inputs[0] == MASK} if pair else {"next": labels != NO_LABEL}
        for kind, which in kinds.items():
            found = trainer.evaluate(*inputs, labels.where(which, NO_LABEL))
            sums[kind] = sums[kind] + found if kind in sums else found
    return {f"held_out.{kind}": (found[0] / found[1]).item() for kind, found in sums.items()}


def run(args: argparse.Namespace, file: ModuleType, device: torch.device) -> Iterator[dict[str, float]]:
    """Train; what each step gave, some of them with the held-out losses, and at last these and a guess."""
    done = saved_steps(args.resume) if args.resume else 0
    if done >= args.steps:
        raise SystemExit(f"{args.resume} has {done} steps done, and --steps is {args.steps}")
    trainer, pair, own = build(file, device, args, args.seed + done)  # after what was saved, dropout draws anew
    if args.resume:
        load(trainer, args.resume)
    text, words = english()
    split = len(text) * 9 // 10  # what follows is held out
    if args.seq >= len(text) - split:
        raise SystemExit(f"--seq must be below {len(text) - split}, the held-out text")

    def samples(part: slice, first: int, last: int) -> Iterator[tuple[Tensor, ...]]:
        data = batches(text[part], words[part], pair, args.batch, args.seq, args.seed)
        return (tuple(x[own].to(device) for x in batch) for batch in islice(data, first, last))

    def seen() -> dict[str, float]:
        return held_out(trainer, pair, samples(slice(split, None), 0, args.held_out))

    trainer.module.train(not args.no_dropout)
    for step, batch in enumerate(samples(slice(split), done, args.steps), start=done + 1):
        for group in trainer.optimizer.param_groups:
            group["lr"] = args.lr * rate(step - 1, args.steps)
        loss, norm = trainer.step(*batch)
        line = {"step": step, "loss": loss.item(), "norm": norm.item()}
        now = step == args.steps or (args.every is not None and step % args.every == 0)
        if now and args.save:
            save(trainer, step, args.save / f"step-{step}")
        yield line | seen() if now and step < args.steps else line
    yield {**seen(), "guess": guess(text[words > 0] if pair else text)}


def positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError
    return number


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, help="a generated file")
    parser.add_argument("--steps", type=positive, default=1000)
    parser.add_argument("--batch", type=positive, default=32, help="samples a step, of all data ranks together")
    parser.add_argument("--seq", type=positive, default=32, help="bytes a sample")
    parser.add_argument("--lr", type=float, default=3e-3, help="at its height")
    parser.add_argument("--seed", type=int, default=0, help="of weights, samples and dropout")
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument("--no-dropout", action="store_true", help="as each layout draws dropout in its own way")
    parser.add_argument("--held-out", type=positive, default=16, help="batches of held-out text")
    parser.add_argument("--every", type=positive, help="steps between held-out losses, and saves; else after the last")
    parser.add_argument("--save", type=Path, help="a folder for checkpoints, one folder each")
    parser.add_argument("--resume", type=Path, help="a checkpoint to go on from")
    parser.add_argument("--out", type=Path, help="a file for the losses, one line of JSON a step")
    args = parser.parse_args()

    spec = importlib.util.spec_from_file_location(args.file.stem, args.file)
    assert spec and spec.loader
    file = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(file)
    dtype = getattr(torch, args.dtype)
    torch.set_default_dtype(dtype)
    if dtype == torch.float64:  # for comparisons: all of it
        file.__dict__.update({name: dtype for name in ("COMPUTE", "REDUCE") if hasattr(file, name)})
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if hasattr(file, "device_mesh"):
        if "RANK" not in os.environ:
            raise SystemExit(f"{args.file} is for several ranks: start this with torchrun")
        dist.init_process_group(device_id=None if device.type == "cpu" else device)
    first = int(os.environ.get("RANK", 0)) == 0  # of all ranks; they tell the same
    out = args.out.open("w") if first and args.out else None
    for line in run(args, file, device):
        if out:
            out.write(json.dumps(line) + "\n")
        if first and (line.get("step") == 1 or line.get("step", 0) % (args.every or 50) == 0):
            print("  ".join(f"{name} {value:.4g}" for name, value in line.items()), flush=True)
    if out:
        out.close()
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
