"""What a build costs: cold processes against one that only imports the dependencies, and depth against depth.

    python benchmarks/build.py [runs]

Prints medians of one run, processes of each kind in turn, so that a drift of the machine meets all alike.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
DEPENDENCIES = "import click, jinja2, networkx, yaml; from pydantic import BaseModel, TypeAdapter, ValidationError"
SPECS = ("transformer-base", "llama-3.1-8b", "llama-3.1-405b")
DEPTHS = (100, 1_000, 10_000)
DIFFERENT = (10, 200)  # blocks of as many layers


def main(runs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        commands = {"import the dependencies": [sys.executable, "-c", DEPENDENCIES]}
        for name in SPECS:
            commands[f"specc build {name}"] = _build(ROOT / "specs" / f"{name}.yaml", folder)
        for depth in DEPTHS:
            commands[f"specc build, {depth:,} layers"] = _build(_deep(depth, folder), folder)
        for blocks in DIFFERENT:
            commands[f"specc build, {blocks} different blocks"] = _build(_different(blocks, folder), folder)
        seconds: dict[str, list[float]] = {name: [] for name in commands}
        for run in range(runs + 1):
            for name, command in commands.items():
                start = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True, cwd=ROOT, env=_environment())
                if run:  # the first writes byte code and fills the disk's cache
                    seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    base = medians["import the dependencies"]
    print(f"medians of {runs} cold processes each, {os.cpu_count()} cores")
    print(f"{'process':<32} {'seconds':>8} {'ratio':>6}")
    for name, value in medians.items():
        print(f"{name:<32} {value:8.3f} {value / base:6.2f}")
    first, last = (medians[f"specc build {name}"] for name in (SPECS[0], SPECS[-1]))
    shallow, deep = (medians[f"specc build, {depth:,} layers"] for depth in (DEPTHS[0], DEPTHS[-1]))
    print(f"{SPECS[-1]} / {SPECS[0]}: {last / first:.2f}")
    print(f"{DEPTHS[-1]:,} layers / {DEPTHS[0]}: {deep / shallow:.2f}")
    few, many = (medians[f"specc build, {blocks} different blocks"] for blocks in DIFFERENT)
    print(f"each of {DIFFERENT[-1]} different blocks: {1000 * (many - few) / (DIFFERENT[-1] - DIFFERENT[0]):.1f} ms")


def _build(spec: Path, folder: str) -> list[str]:
    return [sys.executable, "-m", "specc", "build", str(spec), "-o", folder]


def _deep(depth: int, folder: str) -> Path:
    """The 405B spec with another number of layers."""
    text = (ROOT / "specs" / "llama-3.1-405b.yaml").read_text(encoding="utf-8")
    text = re.sub(r"layers: \d+", f"layers: {depth}", text).replace("name: llama-3.1-405b", f"name: deep-{depth}")
    path = Path(folder) / f"deep-{depth}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def _different(blocks: int, folder: str) -> Path:
    """A model in which no layer is like another, in stages."""
    lines = ["specc: 1", f"name: different-{blocks}", "d_model: 512", "vocab: 32000", "blocks:"]
    names = [f"b{n}" for n in range(blocks)]
    for n, name in enumerate(names):
        lines += [f"  {name}:", "    - attention: {heads: 8, rope: {}}", f"    - ffn: {{hidden: {512 + 8 * n}}}"]
    lines += ["decoder:", f"  layers: {blocks}", f"  pattern: [{', '.join(names)}]"]
    lines.append("layout: {tp: 4, sequence_parallel: true, pp: 4, checkpoint: full}")
    path = Path(folder) / f"different-{blocks}.yaml"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _environment() -> dict[str, str]:
    """Byte code is kept, as it is after an installation."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 9)
