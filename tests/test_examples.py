"""The example trains generated files on real text: the same losses in every layout, resumed too, and it learns."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
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


def layouts(model: str, line: str, folder: Path) -> None:
    """Build the example in another layout, which names the folder that its file goes to."""
    (name,) = re.findall(r"{(\w+)", line)[:1]
    spec = (folder / "specs" / "examples" / f"{model}-text.yaml").read_text()
    (folder / "other.yaml").write_text(spec[: spec.index("layouts:")] + line + "\n")
    succeed(f"specc build other.yaml -o {name}", folder)


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


@pytest.mark.parametrize("model", ["llama", pytest.param("transformer", marks=pytest.mark.matrix)])
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


@pytest.mark.parametrize("model", [pytest.param("llama", marks=pytest.mark.matrix), "transformer"])
def test_what_is_saved_goes_on_in_another_layout(model: str, checkout: Path) -> None:
    """Stages to one process to data ranks: each goes on from what the one before saved, to the same losses."""
    layouts(model, "layouts: {data: {tp: 2, dp: 2}}", checkout)
    options = f"{SMALL} --steps 8 --every 2"
    ranks = "torchrun --nproc-per-node 4 examples/train_text.py"
    succeed(f"specc build specs/examples/{model}-text.yaml -o generated", checkout)
    whole = told(f"{ranks} generated/{model}_text.py {options} --save {model}/stages", checkout)
    assert [line["step"] for line in whole[:-1]] == [*range(1, 9)]
    assert ["held_out" in str(line) for line in whole] == [False, True] * 3 + [False, False, True]
    saved = f"--resume {model}/stages/step-4 --save {model}/one"
    one = told(f"python examples/train_text.py single/{model}_text_single.py {options} {saved}", checkout)
    assert largest(one, whole[4:]) <= 1e-9
    data = told(f"{ranks} data/{model}_text.py {options} --resume {model}/one/step-6", checkout)
    assert largest(data, whole[6:]) <= 1e-9


def test_what_cannot_be_resumed_is_told(checkout: Path) -> None:
    command = f"python examples/train_text.py single/llama_text_single.py {SMALL}"
    (checkout / "broken" / "step-2").mkdir(parents=True)
    refused = run(f"{command} --resume broken/step-2", checkout)
    assert refused.returncode == 1
    assert refused.stderr.splitlines()[-1] == "broken/step-2 holds no checkpoint, or one whose writing was broken off"
    succeed(f"{command} --steps 2 --save short", checkout)
    refused = run(f"{command} --steps 2 --resume short/step-2", checkout)
    assert refused.stderr.splitlines()[-1] == "short/step-2 has 2 steps done, and --steps is 2"


@pytest.mark.matrix
def test_bf16_learns_as_fp32_does(checkout: Path) -> None:
    """Held-out losses are nearer to those of fp32 than another seed's are: in one process, in stages, in data ranks.

    docs/training.md has the same at full length.
    """
    succeed("specc build specs/examples/llama-text.yaml --layout stages_bf16 -o bf16", checkout)
    succeed("specc build specs/examples/llama-text.yaml --layout data_bf16 -o bf16", checkout)
    succeed("specc build specs/examples/llama-text.yaml --layout single_bf16 -o bf16", checkout)
    options = "--batch 16 --steps 100 --every 10 --held-out 4"
    one = "python examples/train_text.py"
    ranks = "torchrun --nproc-per-node 4 examples/train_text.py"
    fp32, other = (told(f"{one} single/llama_text_single.py {options} --seed {seed}", checkout) for seed in (0, 1))
    noise = apart(other, fp32)
    alone = told(f"{one} bf16/llama_text_single_bf16.py {options}", checkout)
    stages = told(f"{ranks} bf16/llama_text_stages_bf16.py {options} --save half", checkout)
    data = told(f"{ranks} bf16/llama_text_data_bf16.py {options} --resume half/step-50", checkout)
    assert len(stages) == len(fp32) and len(data) == len(fp32[50:])
    for found in (alone, stages, data):
        assert 0 < apart(found, fp32[-len(found) :]) < noise / 2
    first, wanted = data[0], stages[50]  # from the same weights: what differs is rounded in another order
    assert abs(first["loss"] / wanted["loss"] - 1) < 2**-8
    assert apart(data, stages[50:]) < noise / 2


def apart(found: Lines, wanted: Lines) -> float:
    """Root of the mean square of what held-out losses differ by; NaN if there is one."""
    pairs = [
        (a["held_out.next"], b["held_out.next"]) for a, b in zip(found, wanted, strict=True) if "held_out.next" in a
    ]
    left, right = torch.tensor(pairs, dtype=torch.float64).unbind(-1)
    return (left - right).square().mean().sqrt().item()


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
    layouts("transformer", "layouts: {parts: {dp: 2, pp: {stages: 2, schedule: gpipe}, microbatches: 2}}", checkout)
    sizes = {"steps": 4, "batch": 8, "seq": 12, "lr": 3e-3, "seed": 0, "no_dropout": True, "held_out": 1}
    options = argparse.Namespace(**sizes, every=None, save=None, resume=None)
    one = train(checkout, "single/transformer_text_single.py", options)
    for lines in run_ranks(4, train, checkout, "parts/transformer_text.py", options):
        assert largest(lines, one) <= 1e-9


def train(checkout: Path, path: str, options: argparse.Namespace) -> Lines:
    """In this process."""
    torch.set_default_dtype(torch.float64)
    example = loaded(checkout / "examples" / "train_text.py")
    file = loaded(checkout / path)
    file.__dict__.update({name: torch.float64 for name in ("COMPUTE", "REDUCE") if hasattr(file, name)})
    return list(example.run(options, file, torch.device("cpu")))


def loaded(path: Path) -> ModuleType:
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module
