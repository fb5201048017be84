"""Layouts that a search finds: they fit, the fastest come first, and what is printed is what a spec takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import specc.cost.memory
import specc.passes
from specc.cli import cli
from specc.compile import compile_spec
from specc.cost.device import Device, device
from specc.cost.fed import fed
from specc.cost.memory import Kind, fits, memories, most
from specc.cost.search import Split, splits
from specc.cost.seconds import step
from specc.cost.timing import Timed, Timing
from specc.ir.graph import Graph
from specc.ir.op import Op
from specc.passes.place import place
from specc.source import Diagnostic, Source
from specc.spec import Layout, Spec, load
from tests.broken import DECODER

H100 = Path(__file__).parents[1] / "specc" / "devices" / "h100.yaml"
REST = "\n".join(line for line in DECODER.splitlines() if not line.startswith(("layout", " layout")))


LAYOUTS = (
    "{microbatches: 11}",
    "{dp: 2, microbatches: 11, checkpoint: full}",
    "{pp: 2, microbatches: 11}",
    "{pp: 6, tp: 2, dp: 2, microbatches: 11, checkpoint: {save: [attention.core]}}",
    "{pp: {stages: 3, schedule: gpipe}, dp: 2, microbatches: 11, precision: bf16}",
)


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
    assert all(split.parts == 1 for split in found)
    long = list(splits(on, 16, 2, 32768))
    assert {split.parts for split in long} == {1, 2, 4} and all(
        split.tp * split.stages * split.data * split.parts == 16 for split in long
    )
    assert Split(2, 1, 2, 4).text(1, "none", "fp32") == "{tp: 2, sequence_parallel: true, cp: 4, dp: 2}"
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
        peak = max(each.peak for each in memories(graph, layout, given, Kind("cuda")))
        assert peak == one["peak"] and fits(peak, on)
        assert step(graph, layout, on, given).step == one["seconds"]["step"]
    text = run(tmp_path, *arguments, memory=has).stdout
    assert text.endswith(f"layout: {told[0]['layout']}\n")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_bytes_are_those_of_all_microbatches(layout: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many microbatches a few are run, and of the stages that are alike the first."""
    spec = load(Source("s.yaml", f"{REST.replace('layers: 4', 'layers: 6')}\nlayout: {layout}\n"))
    assert isinstance(spec, Spec)
    graph = compile_spec(spec, spec.layouts[0]).placed
    given = fed(spec, spec.layouts[0], graph, 44, 32)
    assert not isinstance(given, Diagnostic)
    few, greatest = memories(graph, spec.layouts[0], given), most(graph, spec.layouts[0], given)
    monkeypatch.setattr(specc.cost.memory, "TURNS", ())
    monkeypatch.setattr(specc.cost.memory, "enough", lambda schedule, stages, microbatches: microbatches)
    every = memories(graph, spec.layouts[0], given)
    assert few == every and greatest == max(stage.peak for stage in every)


def test_graphs_are_shared_and_blocks_run_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A way to share out ranks is placed once for all that runs again, and each op timed once for a microbatch."""
    placed: list[tuple[int, int, int]] = []
    timed: list[tuple[int, int, int, int, str]] = []
    passes, time = place, Timing._op

    def counted(graph: Graph, layout: Layout) -> Graph:
        placed.append((layout.tp, layout.pp.stages, layout.dp))
        return passes(graph, layout)

    def once(self: Timing, op: Op) -> Timed:
        ranks = self.sizes.ranks
        timed.append((ranks.get("tp", 1), ranks.get("dp", 1), self.microbatches, len(self.graph.ops), op.id))
        return time(self, op)

    monkeypatch.setattr(specc.passes, "PASSES", tuple(counted if one is passes else one for one in specc.passes.PASSES))
    monkeypatch.setattr(Timing, "_op", once)
    result = run(tmp_path, "--search", "--gpus", "8", "--batch", "16", "--seq", "32", "--json")
    assert json.loads(result.stdout)
    assert placed and len(placed) == len(set(placed))
    assert timed and len(timed) == len(set(timed))


def test_nothing_fits(tmp_path: Path) -> None:
    result = run(tmp_path, "--search", "--gpus", "8", "--batch", "16", memory=2**30)
    assert result.return_value == 1 and "E703" in result.stdout
    assert "8 x h100 with a batch of 16 sequences" in result.stdout


def test_what_a_search_needs(tmp_path: Path) -> None:
    for wrong in (("--search", "--batch", "8"), ("--gpus", "8", "--batch", "8")):
        result = run(tmp_path, *wrong)
        assert "--search needs --gpus" in str(result.exception)
