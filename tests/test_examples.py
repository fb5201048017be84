"""The example trains generated files on real text: the same losses on four ranks as on one, and it learns."""

from __future__ import annotations

import argparse
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
import torch

from specc.verify.launch import run_ranks
from tests.test_docs import blocks, checkout_in, run

SMALL = "--batch 8 --seq 16 --dtype float64 --no-dropout --held-out 1"
STEPS = 50

Lines = list[dict[str, float]]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = checkout_in(tmp_path_factory.mktemp("examples"))
    succeed("specc build specs/examples/*.yaml --layout single -o single", folder)
    return folder


def succeed(command: str, folder: Path) -> None:
    result = run(command, folder)
    assert result.returncode == 0, f"{command}\n{result.stdout[-3000:]}{result.stderr[-6000:]}"


def told(command: str, folder: Path) -> Lines:
    """What a command of the example writes."""
    succeed(f"{command} --out lines.json", folder)
    return [json.loads(line) for line in (folder / "lines.json").read_text().splitlines()]


def largest(found: Lines, wanted: Lines) -> float:
    """Relative difference over all numbers of all lines; NaN if there is one."""
    assert [line.keys() for line in found] == [line.keys() for line in wanted]
    pairs = [(a[name], b[name]) for a, b in zip(found, wanted, strict=True) for name in a]
    left, right = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    return ((left - right) / right).abs().max().item()  # max keeps NaN


@pytest.mark.parametrize("model", ["llama", "transformer"])
def test_four_ranks_train_as_one(model: str, checkout: Path) -> None:
    """The commands of the README, and the same for the encoder-decoder: tp 2, pp 2, every layer recomputed."""
    (block,) = [block for block in blocks("README.md", "sh") if "torchrun" in block]
    build, train = block.replace("/tmp/generated", "generated").replace("llama", model).splitlines()
    succeed(build, checkout)
    source = (checkout / "generated" / f"{model}_text.py").read_text()
    assert all(fact in source for fact in ("over tp = 2", "\n2 pipeline stages", "\nevery layer is recomputed"))
    four = told(f"{train} {SMALL} --steps {STEPS}", checkout)
    one = told(f"python examples/train_text.py single/{model}_text_single.py {SMALL} --steps {STEPS}", checkout)
    assert len(four) == STEPS + 1
    assert largest(four, one) <= 1e-6
    assert four[STEPS - 1]["loss"] < four[0]["loss"] - 2  # nats: bytes are seven times as likely


def test_masked_words_are_restored(checkout: Path) -> None:
    """Visible bytes are copied, and masked ones are known from what is around them."""
    options = "--no-dropout --batch 16 --steps 700 --held-out 8"
    (*_, last) = told(f"python examples/train_text.py single/transformer_text_single.py {options}", checkout)
    assert last["held_out.visible"] < 0.15
    assert last["held_out.masked"] < 0.85 * last["guess"]
    share = 0.2  # of masked bytes; to copy alone costs share * guess
    assert (1 - share) * last["held_out.visible"] + share * last["held_out.masked"] < 0.9 * share * last["guess"]


def test_data_ranks_take_their_own_samples(checkout: Path) -> None:
    """Lengths differ, so that a mean over labels is not the mean of two ranks' means."""
    spec = (checkout / "specs" / "examples" / "transformer-text.yaml").read_text()
    layouts = "layouts: {data: {dp: 2, pp: {stages: 2, schedule: gpipe}, microbatches: 2}}\n"
    (checkout / "data.yaml").write_text(spec[: spec.index("layouts:")] + layouts)
    succeed("specc build data.yaml -o data", checkout)
    options = argparse.Namespace(steps=4, batch=8, seq=12, lr=3e-3, seed=0, no_dropout=True, held_out=1)
    one = train(checkout, "single/transformer_text_single.py", options)
    for lines in run_ranks(4, train, checkout, "data/transformer_text.py", options):
        assert largest(lines, one) <= 1e-9


def train(checkout: Path, path: str, options: argparse.Namespace) -> Lines:
    """In this process."""
    torch.set_default_dtype(torch.float64)
    example = loaded(checkout / "examples" / "train_text.py")
    file = loaded(checkout / path)
    file.__dict__["REDUCE"] = torch.float64
    return list(example.run(options, file, torch.device("cpu")))


def loaded(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
