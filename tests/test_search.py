"""Layouts that a search finds: they fit, the fastest come first, and what is printed is what a spec takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from specc.cli import cli
from specc.compile import compile_spec
from specc.cost.device import Device, device
from specc.cost.fed import fed
from specc.cost.memory import Kind, fits, memories
from specc.cost.search import Split, splits
from specc.cost.seconds import step
from specc.source import Diagnostic, Source
from specc.spec import Spec, load
from tests.broken import DECODER

H100 = Path(__file__).parents[1] / "specc" / "devices" / "h100.yaml"
REST = "\n".join(line for line in DECODER.splitlines() if not line.startswith(("layout", " layout")))


def run(folder: Path, *arguments: str, memory: float = 85e9) -> Result:
    (folder / "s.yaml").write_text(DECODER)
    (folder / "d.yaml").write_text(re.sub(r"memory: \S+", f"memory: {memory}", H100.read_text()))
    places = (str(folder / "s.yaml"), "--device", str(folder / "d.yaml"))
    return CliRunner().invoke(cli, ["plan", *places, *arguments], standalone_mode=False)


def test_ways_to_share_out() -> None:
    on = device("h100")
    assert isinstance(on, Device)
    found = list(splits(on, 16, 2))
    assert len(set(found)) == len(found) and all(one.tp * one.stages * one.data == 16 for one in found)
    assert {one.tp for one in found} == {1, 2, 4, 8} and {one.stages for one in found} == {1, 2}
    assert Split(2, 1, 8).text(1, "none", "fp32") == "{tp: 2, sequence_parallel: true, dp: 8}"


@pytest.mark.parametrize("least", [False, True], ids=["all fit", "few fit"])
def test_what_is_found(least: bool, tmp_path: Path) -> None:
    """With the memory of the one that needs least, it is the only one."""
    every = json.loads(run(tmp_path, "--search", "--gpus", "8", "--batch", "16", "--seq", "32", "--json").stdout)
    assert len(every) > 2
    peaks = [one["peak"] for one in every]
    has = min(peaks) + 2 * 2**30 if least else 85e9
    arguments = ("--search", "--gpus", "8", "--batch", "16", "--seq", "32")
    told = json.loads(run(tmp_path, *arguments, "--json", memory=has).stdout)
    assert told and (not least or all(one["peak"] <= min(peaks) for one in told))
    assert [one["seconds"]["step"] for one in told] == sorted(one["seconds"]["step"] for one in told)
    on = device(str(tmp_path / "d.yaml"))
    assert isinstance(on, Device)
    for one in told:
        spec = load(Source("s.yaml", f"{REST}\nlayout: {one['layout']}\n"))
        assert isinstance(spec, Spec), one
        layout = spec.layouts[0]
        graph = compile_spec(spec, layout).placed
        given = fed(spec, layout, graph, 16, 32)
        assert not isinstance(given, Diagnostic)
        most = max(each.peak for each in memories(graph, layout, given, Kind("cuda")))
        assert most == one["peak"] and fits(most, on)
        assert step(graph, layout, on, given).step == one["seconds"]["step"]
    text = run(tmp_path, *arguments, memory=has).stdout
    assert text.endswith(f"layout: {told[0]['layout']}\n")


def test_nothing_fits(tmp_path: Path) -> None:
    result = run(tmp_path, "--search", "--gpus", "8", "--batch", "16", memory=2**30)
    assert result.return_value == 1 and "E703" in result.stdout
    assert "8 x h100 with a batch of 16 sequences" in result.stdout


def test_what_a_search_needs(tmp_path: Path) -> None:
    for wrong in (("--search", "--batch", "8"), ("--gpus", "8", "--batch", "8")):
        result = run(tmp_path, *wrong)
        assert "--search needs --gpus" in str(result.exception)
