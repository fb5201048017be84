"""What the language accepts is built, in the formatter's own form: long names, large sizes, many of everything."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from specc.emit import emit
from specc.source import Source
from specc.spec import Spec, load
from tests.strategies import Doc, Drawn, dump, specs

NAMES = ("a" * 64, "x.y-z_1", "t5", "s-t-a-g-e", "block", "first")
HEAD = "specc: 1\nname: many\nd_model: 512\nvocab: 32000\n"
ATTENTION = "attention: {heads: 8}"


def renamed(document: Doc, length: int) -> Doc:
    """Blocks have names of that length, at least their own."""
    made = copy.deepcopy(document)
    names = {
        name: name + "_" * (length > len(name)) + "x" * (length - len(name) - 1) for name in made.get("blocks", {})
    }

    def listed(words: list[str]) -> list[str]:
        return [names[word.partition("*")[0]] + "*".join(("", *word.split("*")[1:])) for word in words]

    if names:
        blocks = made["blocks"].items()
        likes = {name: {**block, "like": names[block["like"]]} for name, block in blocks if isinstance(block, dict)}
        made["blocks"] = {names[name]: likes.get(name, block) for name, block in blocks}
    for role in ("encoder", "decoder"):
        pattern = made.get(role, {}).get("pattern", [])
        if isinstance(pattern, dict):
            made[role]["pattern"] = {key: listed(words) for key, words in pattern.items()}
        elif pattern:
            made[role]["pattern"] = listed(pattern)
    return made


def larger(node: Any, times: int) -> Any:
    if isinstance(node, dict):
        sizes = ("hidden", "d_model", "vocab", "max_seq")
        return {key: value * times if key in sizes else larger(value, times) for key, value in node.items()}
    return [larger(item, times) for item in node] if isinstance(node, list) else node


def write(folder: Path, text: str, number: int) -> None:
    spec = load(Source("s.yaml", text))
    assert isinstance(spec, Spec), spec
    for n, layout in enumerate(spec.layouts):
        (folder / f"f{number}_{n}.py").write_text(emit(spec, layout).source)


def formatted(folder: Path) -> None:
    ruff, options = [sys.executable, "-m", "ruff"], ["--isolated", "--line-length", "120"]
    for command in (["format", *options, "--diff"], ["check", *options, "--select", "F,I,E,B"]):
        done = subprocess.run([*ruff, *command, str(folder)], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[:2000]


def test_what_is_accepted_is_built(tmp_path: Path) -> None:
    count = 0

    @settings(database=None)
    @given(specs(), st.sampled_from((0, 20, 60, 64)), st.sampled_from((1, 64, 1000)), st.sampled_from(NAMES))
    def build(drawn: Drawn, length: int, times: int, name: str) -> None:
        nonlocal count
        count += 1
        write(tmp_path, dump({**larger(renamed(drawn.document, length), times), "name": name}), count)

    build()
    formatted(tmp_path)


def blocks(count: int, mixer: str) -> str:
    """Named blocks that all differ, in turn."""
    names = [f"b{n}" for n in range(count)]
    lines = [f"  {name}: [{mixer % n}, ffn: {{hidden: {512 + 8 * n}}}]" for n, name in enumerate(names)]
    return "\n".join(["blocks:", *lines, f"decoder: {{layers: {2 * count + 1}, pattern: [{', '.join(names)}]}}", ""])


def general(count: int) -> str:
    keys = (
        "pre: {eps: 0.00123456789}, post: true, in_scale: 0.98765432109876, out_scale: -1.9876543210987, dropout: 0.1"
    )
    parts = [f"{{{ATTENTION if n % 2 else 'ffn: {hidden: 512}'}, {keys}}}" for n in range(count)]
    scales = "alpha: 0.123456789012345, beta: 1.2345678901234567"
    whole = f"{{norm: true, {scales}, base: normed, parallel: [{', '.join(parts)}]}}"
    return f"decoder: {{layers: 3, block: [{whole}]}}\n"


FFN = "ffn: {hidden: 512}"
MANY = {
    "blocks": blocks(30, "attention: {heads: 8, bias: true, scale: 0.%d3}"),
    "tables": blocks(12, "attention: {heads: 8, rope: {theta: 1%03d}}"),
    "kinds": blocks(9, "ffn: {hidden: 64, kind: gated, bias: true, dropout: 0.%d}"),
    "branches": general(16),
    "two branches": general(2),
    "parallel": f"decoder: {{layers: 3, block: [parallel: [{', '.join([ATTENTION, FFN] * 8)}]]}}\n",
    "sublayers": f"decoder: {{layers: 3, block: [{', '.join([ATTENTION, FFN] * 16)}]}}\n",
    "both": f"pad: 0\nencoder: {{layers: 3, block: [{', '.join([ATTENTION, FFN] * 8)}]}}\n"
    f"decoder: {{layers: 3, block: [{', '.join(['cross_attention: {heads: 8}', FFN] * 8)}]}}\n",
    "quotes": 'description: "\\"\\"\\" and \\\\n \\\\\\" at the end \\\\"\n'
    f"decoder: {{layers: 2, block: [{ATTENTION}, {FFN}]}}\n",
}
LAYOUTS = "layouts: {one: {}, all: {tp: 4, sequence_parallel: true, dp: 2, pp: 3, checkpoint: {every: 2}}}\n"


@pytest.mark.parametrize("name", MANY)
def test_many_of_everything_are_built(name: str, tmp_path: Path) -> None:
    text = f"{HEAD}{MANY[name]}{LAYOUTS}"
    write(tmp_path, text.replace("pp: 3", "pp: 2") if name == "quotes" else text, 0)
    formatted(tmp_path)


def test_a_comprehension_that_is_too_long_is_no_call(tmp_path: Path) -> None:
    """Two blocks whose constructors differ in every argument, in stages."""
    one, two = (f"[{{attention: {{heads: {n}}}}}, {{ffn: {{hidden: {16 * n}}}}}]" for n in (4, 2))
    pattern = "decoder: {layers: 4, pattern: {head: [a], cycle: [b]}}"
    text = f"specc: 1\nname: m\nd_model: 32\nvocab: 96\nblocks: {{a: {one}, b: {two}}}\n{pattern}\nlayout: {{pp: 2}}\n"
    write(tmp_path, text, 0)
    formatted(tmp_path)


def calls(text: str, do: Callable[[Spec], object]) -> int:
    """Events of functions, calls and returns, that it takes to do that with a spec."""
    spec = load(Source("s.yaml", text))
    assert isinstance(spec, Spec), spec
    count = 0

    def counting(*_: object) -> None:
        nonlocal count
        count += 1

    sys.setprofile(counting)
    try:
        do(spec)
    finally:
        sys.setprofile(None)
    return count


def test_a_file_costs_what_it_has_stages() -> None:
    def cost(stages: int) -> int:
        layers = f"{HEAD}decoder: {{layers: 3000, block: [{ATTENTION}, {FFN}]}}\n"
        return calls(f"{layers}layout: {{pp: {{stages: {stages}}}}}\n", lambda spec: emit(spec, spec.layout()))

    cost(4)  # what is made once
    few, more, many = map(cost, (100, 200, 400))
    assert many - more < 2.2 * (more - few)


def test_blocks_that_are_nearly_alike_cost_little() -> None:
    """What is known of an op is known of all that are like it: in each block only the width of the ffn is another."""

    def cost(blocks: int) -> int:
        each = "".join(f"  b{n}: [{ATTENTION}, {{ffn: {{hidden: {64 + 4 * n}}}}}]\n" for n in range(blocks))
        pattern = f"{{layers: {blocks}, pattern: [{', '.join(f'b{n}' for n in range(blocks))}]}}"
        layout = "{tp: 2, sequence_parallel: true, pp: 2, checkpoint: full}"
        text = f"{HEAD}blocks:\n{each}decoder: {pattern}\nlayout: {layout}\n"
        return calls(text, lambda spec: emit(spec, spec.layout()))

    cost(4)
    few, more, many = map(cost, (10, 20, 40))
    assert many - more < 2.2 * (more - few)
    assert many - more < 20 * 34_000  # 28,000 when this was written
