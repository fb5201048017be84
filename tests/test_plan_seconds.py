"""What `specc plan` says of the time of a step, and of a batch that cannot be."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

import specc.cost
from specc.cli import cli
from specc.cli.seconds import between, rounded
from specc.compile import compile_spec
from specc.cost.device import Device, device
from specc.cost.fed import fed
from specc.cost.memory import Kind, memories
from specc.cost.seconds import step
from specc.source import Diagnostic, Source
from specc.spec import Spec, load
from tests import zoo
from tests.broken import DECODER


def run(text: str, folder: Path, *arguments: str) -> Result:
    place = folder / "s.yaml"
    place.write_text(text)
    return CliRunner().invoke(cli, ["plan", str(place), *arguments], standalone_mode=False)


def test_without_a_batch_nothing_is_new(tmp_path: Path) -> None:
    plain, asked = run(DECODER, tmp_path), run(DECODER, tmp_path, "--device", "h100", "--batch", "8")
    assert plain.return_value == asked.return_value == 0
    assert asked.stdout.startswith(plain.stdout) and "of a step" not in plain.stdout
    for wrong in (("--fits", "--batch", "8"), ("--device", "h100"), ("--json",), ("--seq", "8")):
        result = run(DECODER, tmp_path, *wrong)
        assert isinstance(result.exception, click.UsageError)
        assert any(words in str(result.exception) for words in ("needs --batch", "needs --batch and --device"))


def test_bytes_of_a_batch(tmp_path: Path) -> None:
    """A line a stage; a device that has less than the most of one does not fit."""
    plain = run(DECODER, tmp_path, "--batch", "8", "--seq", "32")
    assert plain.return_value == 0 and "GiB are allocated" in plain.stdout and "of a step" not in plain.stdout
    told = json.loads(run(DECODER, tmp_path, "--batch", "8", "--seq", "32", "--json").stdout)["memory"]
    spec = load(Source("s.yaml", DECODER))
    assert isinstance(spec, Spec)
    graph = compile_spec(spec, spec.layout()).placed
    assert told == [asdict(each) for each in memories(graph, spec.layout(), {"batch": 2, "seq": 32}, Kind("cuda"))]
    most = max(stage["peak"] for stage in told)
    assert sum(told[0]["parts"].values()) == told[0]["peak"]
    sheet = (Path(specc.cost.__file__).parents[1] / "devices" / "h100.yaml").read_text()
    most += 2 * 2**30  # context and libraries
    for has, code, words in ((most, 0, "fits"), (most - 1, 1, "does not fit")):
        own = tmp_path / "own.yaml"
        own.write_text(re.sub(r"memory: \S+", f"memory: {has}", sheet))
        result = run(DECODER, tmp_path, "--batch", "8", "--seq", "32", "--device", str(own), "--fits")
        assert result.return_value == code and words in result.stdout


def test_what_is_told_is_what_is_modelled(tmp_path: Path) -> None:
    arguments = ("--device", "h100", "--batch", "8", "--seq", "32")
    told = json.loads(run(DECODER, tmp_path, *arguments, "--json").stdout)
    spec = load(Source("s.yaml", DECODER))
    on = device("h100")
    assert isinstance(spec, Spec) and isinstance(on, Device)
    layout = spec.layout()
    graph = compile_spec(spec, layout).placed
    given = fed(spec, layout, graph, 8, 32)
    assert given == {"batch": 2, "seq": 32} and not isinstance(given, Diagnostic)
    found = step(graph, layout, on, given)
    assert told["step"] == found.step and told["ranks"] == 4 and told["tokens"] == 8 * 32
    text = run(DECODER, tmp_path, *arguments).stdout
    for row in found.parts:
        assert any(
            line.split() == [*row.name.split(), rounded(row.seconds), *row.source.split()] for line in text.splitlines()
        )
    assert f"seconds a step             {between(found.low, found.high)}" in text
    assert "8 sequences, 256 tokens on 4 x h100:" in text


EQUAL = "cannot be cut into equal parts for"
THREE, SHARED = ("tp: 2", "tp: 2, dp: 3"), ("tp: 2", "tp: 2, sequence_parallel: true")
WRONG = {
    "microbatches": (("", ""), 6, None, f"a batch of 6 sequences {EQUAL} 4 microbatches", "the nearest are 4 and 8"),
    "few": (("", ""), 3, None, f"a batch of 3 sequences {EQUAL} 4 microbatches", "the nearest is 4"),
    "dp": (THREE, 8, None, f"a batch of 8 sequences {EQUAL} dp = 3 and 4 microbatches", "the nearest is 12"),
    "long": (("", ""), 8, 65, "sequences of 65 tokens, and max_seq is 64", "at most 64"),
    "odd": (SHARED, 8, 33, f"sequences of 33 tokens {EQUAL} tp = 2", "the nearest are 32 and 34"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_batch_that_does_not_divide_has_its_place_and_the_nearest_that_does(case: str) -> None:
    (old, new), batch, seq, message, help = WRONG[case]
    text = DECODER.replace(old, new)
    spec = load(Source("s.yaml", text))
    assert isinstance(spec, Spec)
    found = fed(spec, spec.layout(), compile_spec(spec, spec.layout()).placed, batch, seq)
    assert isinstance(found, Diagnostic)
    assert (found.code, found.message, found.help) == ("E702", message, help)
    word = "max_seq" if case == "long" else "tp" if case == "odd" else "microbatches"
    assert found.span is not None
    assert text.splitlines()[found.span.place[0] - 1][: found.span.place[1] - 1].endswith(f"{word}: ")


def test_a_wrong_batch_ends_the_command(tmp_path: Path) -> None:
    result = run(DECODER, tmp_path, "--device", "h100", "--batch", "6")
    assert result.return_value == 1 and "error[E702]" in result.stdout
    result = run(DECODER, tmp_path, "--device", "nothing", "--batch", "8")
    assert result.return_value == 1 and "error[E701]" in result.stdout


def test_every_size_of_the_graph_is_known() -> None:
    for name in ("transformer-tiny", "experts-tiny", "vision-tiny", "llama-tiny"):
        spec = zoo.spec(name)
        layout = replace(spec.layout(), dp=2, microbatches=3)
        graph = compile_spec(spec, layout).placed
        found = fed(spec, layout, graph, 24)
        assert isinstance(found, dict) and found.keys() == graph.symbols.keys()
        seq = spec.model.max_seq
        sizes = {"batch": 4, "slots": 4 * seq}
        assert all(size == sizes.get(name, seq) for name, size in found.items())


def test_two_digits_that_count() -> None:
    assert [rounded(x) for x in (0.00413, 0.0996, 0.1, 1.26, 9.96, 12.4, 1340, 0)] == [
        *("0.0041", "0.10", "0.10", "1.3", "10", "12", "1,300", "0")
    ]
    assert between(0.93, 1.5) == "0.93 .. 1.5"
