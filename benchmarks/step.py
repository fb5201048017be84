"""What a training step costs: generated files against the same models of others, on one device.

    pip install -e '.[bench]' && pip install --no-deps litgpt==0.5.13  # its pin of huggingface-hub is not transformers'
    python -m benchmarks.step [seconds]

All start from the same weights, and the losses of their first steps are compared before anything is timed. Then they
take turns in one process, so that a drift of the machine meets all alike, and what counts is the CPU seconds of the
process. A ratio is the median over the rounds of theirs through ours. Each has its own forward; sizes, number of
weights, float32, `scaled_dot_product_attention`, cross entropy, clipping and the fused AdamW with its two groups are
the same. A library that is not installed is left out.
"""

from __future__ import annotations

import importlib.util
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.others import GPT2S, LLAMAS, RMS_EPS, Other, Sizes, Weights

ROOT = Path(__file__).parents[1]
LR, NORM = 1e-3, 1.0
AGREE = 3  # steps whose losses must be those of ours
TOLERANCE = 1e-4
NOISE = 0.05  # on every weight, norms and biases too, so that a wrong one shows

Step = Callable[..., Tensor]  # tokens, labels [batch, seq] -> loss


@dataclass(frozen=True)
class Model:
    name: str
    spec: str
    sizes: Sizes
    others: tuple[Other, ...]


LLAMA = """\
specc: 1
name: llama
d_model: {d_model}
vocab: {vocab}
max_seq: {seq}
norm: {{kind: rms, eps: {rms_eps}}}
decoder:
  layers: {layers}
  block:
    - attention: {{heads: {heads}, kv_heads: {kv_heads}, rope: {{theta: 10000}}}}
    - ffn: {{kind: gated, hidden: {hidden}, activation: silu}}
"""

GPT2 = """\
specc: 1
name: gpt2
d_model: {d_model}
vocab: {vocab}
max_seq: {seq}
norm: {{kind: layer, eps: 1e-5}}
embedding: {{positions: learned, tied: true}}
decoder:
  layers: {layers}
  block:
    - attention: {{heads: {heads}, bias: true}}
    - ffn: {{hidden: {hidden}, activation: gelu_tanh, bias: true}}
"""


MODELS = (
    Model("Llama", LLAMA, Sizes(6, 512, 8, 4, 1376, 16384, 2, 256), LLAMAS),
    Model("small Llama", LLAMA, Sizes(8, 128, 4, 2, 352, 1024, 4, 64), LLAMAS),
    Model("GPT-2", GPT2, Sizes(4, 768, 12, 12, 3072, 50257, 1, 256), GPT2S),
)


def generated(model: Model, folder: Path) -> ModuleType:
    """The file that specc writes for it."""
    spec = folder / "spec.yaml"
    spec.write_text(model.spec.format(**vars(model.sizes), rms_eps=RMS_EPS), encoding="utf-8")
    specc("build", spec, "-o", folder)
    return loaded(folder)


def specc(*arguments: str | Path) -> None:
    """Run the command. Raises SystemExit with its words where it fails."""
    run = subprocess.run([sys.executable, "-m", "specc", *arguments], cwd=ROOT, capture_output=True, text=True)
    if run.returncode:
        raise SystemExit(f"specc {' '.join(map(str, arguments))}\n{run.stdout}{run.stderr}")


def loaded(folder: Path) -> ModuleType:
    """The one Python file of a folder."""
    (path,) = folder.glob("*.py")
    found = importlib.util.spec_from_file_location(path.stem, path)
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def ours(file: ModuleType) -> tuple[nn.Module, Step]:
    """Whole, with the guard that leaves out an update whose norm is 0 or not finite."""
    trainer = file.Trainer(torch.device("cpu"), 0, LR)

    def step(tokens: Tensor, labels: Tensor) -> Tensor:
        return trainer.step(tokens, labels)[0]

    return trainer.module, step


def theirs(other: Other, sizes: Sizes, weights: Weights) -> Step:
    """Their forward; loss, clipping and update are torch's, as in ours."""
    module = other.build(sizes).train()
    missing, unexpected = module.load_state_dict(other.weights(weights, sizes), strict=False)
    unknown = {*missing} & {name for name, _ in module.named_parameters()}
    assert not unknown and not unexpected, f"{other.name}: {sorted(unknown)} {unexpected}"
    count = sum(p.numel() for p in module.parameters())
    wanted = sum(p.numel() for p in weights.values())
    assert count == wanted, f"{other.name} has {count:,} parameters, ours {wanted:,}"
    optimizer = adamw(module)

    def step(tokens: Tensor, labels: Tensor) -> Tensor:
        optimizer.zero_grad()
        logits = other.logits(module(tokens))
        value = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
        value.backward()
        nn.utils.clip_grad_norm_(module.parameters(), NORM)
        optimizer.step()
        return value.detach()

    return step


def adamw(module: nn.Module, lr: float = LR) -> torch.optim.AdamW:
    """As in generated files: decay on matrices alone, not on norms, biases and embeddings."""
    embeddings = {id(p) for child in module.modules() if isinstance(child, nn.Embedding) for p in child.parameters()}
    decays = {p: p.ndim > 1 and id(p) not in embeddings for p in module.parameters()}
    groups = [
        {"params": [p for p, decay in decays.items() if decay], "weight_decay": 0.1},
        {"params": [p for p, decay in decays.items() if not decay], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), eps=1e-8, fused=True)


def agree(steps: Mapping[str, Step], batches: list[tuple[Tensor, ...]]) -> float:
    """Train all on the same batches; the largest relative difference of a loss from ours, the first."""
    losses = torch.stack([torch.stack([step(*batch) for batch in batches]) for step in steps.values()])
    worst = ((losses - losses[0]) / losses[0]).abs().max().item()
    if not worst <= TOLERANCE:  # nor NaN
        raise SystemExit(f"not the same model: losses of {', '.join(steps)} are\n{losses}")
    return worst


def turns(steps: Mapping[str, Step], batch: tuple[Tensor, ...], enough: float) -> dict[str, list[float]]:
    """CPU seconds of steps, everyone once a round, in another order each time, until ours had enough."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    names = list(steps)
    while len(seconds["specc"]) < 2 or sum(seconds["specc"]) < enough:
        for name in names:
            start = time.process_time()
            steps[name](*batch)
            seconds[name].append(time.process_time() - start)
        names.append(names.pop(0))
    return seconds


def title(model: Model) -> str:
    return f"{model.name}: " + ", ".join(f"{name} {value}" for name, value in vars(model.sizes).items())


def measure(model: Model, enough: float) -> None:
    """Print the table of one model."""
    sizes = model.sizes
    with tempfile.TemporaryDirectory() as folder:
        module, step = ours(generated(model, Path(folder)))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            p += NOISE * torch.randn(p.shape, generator=generator)
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    steps = {"specc": step}
    for other in model.others:
        if importlib.util.find_spec(other.package):
            steps[other.name] = theirs(other, sizes, weights)
    ids = torch.randint(sizes.vocab, (AGREE, sizes.batch, sizes.seq + 1), generator=generator)
    batches: list[tuple[Tensor, ...]] = [(row[:, :-1].contiguous(), row[:, 1:].contiguous()) for row in ids]
    worst = agree(steps, batches)
    seconds = turns(steps, batches[0], enough)
    print(f"\n{title(model)}")
    count = sum(p.numel() for p in weights.values())
    rounds = len(seconds["specc"])
    print(f"{count:,} parameters in float32; losses of {AGREE} steps differ by at most {worst:.0e}; {rounds} rounds")
    print(f"{'step':<16} {'CPU seconds':>11} {'through ours':>12} {'quartiles':>12}")
    for name, values in seconds.items():
        ratios = [value / mine for value, mine in zip(values, seconds["specc"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        print(f"{name:<16} {statistics.median(values):11.3f} {middle:12.2f} {low:6.2f} {high:5.2f}")


def main(enough: float) -> None:
    torch.set_num_threads(1)
    print(f"torch {torch.__version__}, one thread of {os.cpu_count()} cores")
    for model in MODELS:
        measure(model, enough)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 20.0)
