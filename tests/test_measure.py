"""`specc measure` writes a file that a device is read from, and with which `plan` says something else."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from click.testing import CliRunner

from specc.cli import cli
from specc.cost.device import Device, Measured, described, device, device_text, with_measured
from specc.measure.collectives import collectives
from specc.measure.kernels import Bench
from specc.measure.machine import here, joined, sheet, usual
from specc.source import Source

ROOT = Path(__file__).parents[1]


def call(*arguments: str) -> str:
    result = CliRunner().invoke(cli, list(arguments), standalone_mode=False)
    assert result.return_value == 0, result.output
    return result.stdout


def planned(name: str) -> dict[str, object]:
    spec = str(ROOT / "specs" / "tiny" / "llama-tiny.yaml")
    return json.loads(call("plan", spec, "--device", name, "--batch", "8", "--seq", "32", "--json"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about the CPU")
def test_a_quick_measure_of_the_cpu_changes_the_plan(tmp_path: Path) -> None:
    place = tmp_path / "mine.yaml"
    assert call("measure", "--quick", "-o", str(place)) == ""
    found = device(str(place))
    assert isinstance(found, Device) and found.measured is not None
    assert found.measured.precision == "fp32" and found.measured.torch == torch.__version__
    assert len(found.measured.matmuls) == 3 and len(found.measured.attention) == 1
    assert found.measured.bandwidth is not None and found.measured.kernel is not None
    plain = device("cpu")
    assert isinstance(plain, Device) and found.model_copy(update={"measured": None}) == plain
    before, after = planned("cpu"), planned(str(place))
    assert before["step"] != after["step"]
    assert "memory" in before["unmeasured"] and "memory" not in after["unmeasured"]  # pyright: ignore[reportOperatorIssue]


def test_what_was_measured_before_is_replaced() -> None:
    text = device_text("cpu")
    assert isinstance(text, str)
    once = with_measured(text, Measured(precision="fp32", torch="1", bandwidth=1e9))
    assert once.startswith(text.rstrip())
    twice = with_measured(once + "# the end\n", Measured(precision="bf16", torch="2.13.0", kernel=1.23456e-6))
    assert twice.count("measured:") == 1
    found = described(Source("d.yaml", twice))
    assert isinstance(found, Device)
    assert found.measured == Measured(precision="bf16", torch="2.13.0", kernel=1.23e-6)


def test_what_is_wrong_is_told_before_anything_is_measured() -> None:
    result = CliRunner().invoke(cli, ["measure", "--device", "h10"], standalone_mode=False)
    assert result.return_value == 1 and "error[E701]: there is no device h10" in result.stdout


def test_collectives_are_measured_where_there_is_a_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One rank: what matters is that every kind runs."""
    monkeypatch.setitem(os.environ, "WORLD_SIZE", "1")
    with joined(torch.device("cpu")) as rank:
        assert rank == 0 and not dist.is_initialized()
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    try:
        found = collectives(Bench(torch.device("cpu"), torch.float32, quick=True))
    finally:
        dist.destroy_process_group()
    assert {(row.kind, row.bytes) for row in found} == {
        (kind, size) for kind in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all") for size in (2**18, 2**21)
    }
    assert all(row.ranks == 1 and row.seconds > 0 for row in found)


def test_a_sheet_is_chosen_by_what_torch_says(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda", 0)
    for told, name in {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA A100-SXM4-80GB": "a100", "NVIDIA L4": None}.items():
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device, told=told: told)
        assert sheet(cuda) == name
    assert (usual(cuda), usual(torch.device("cpu")), sheet(torch.device("cpu"))) == ("bf16", "fp32", "cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert here() == torch.device("cpu")
