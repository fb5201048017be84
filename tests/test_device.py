"""Files of devices: those that specc has are whole, and what is wrong in one is told with its place."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specc.cost.device import FOLDER, Device, described, device, devices
from specc.source import Diagnostic, Source

TEXT = (FOLDER / "h100.yaml").read_text()


@pytest.mark.parametrize("name", devices())
def test_every_device_can_be_had_by_name(name: str) -> None:
    found = device(name)
    assert isinstance(found, Device) and found.name == name and found.measured is None
    assert found.peak("bfloat16") == found.peak("float16") >= found.peak("float32") > 0
    assert found.network <= found.link < found.bandwidth
    assert found.range.low < 1 < found.range.high


def test_a_device_of_ones_own(tmp_path: Path) -> None:
    place = tmp_path / "mine.yaml"
    place.write_text(TEXT.replace("name: h100", "name: mine").replace("989.5e12", "500e12"))
    found = device(str(place))
    assert isinstance(found, Device)
    assert (found.name, found.peak("bfloat16"), found.peak("float32")) == ("mine", 500e12, 66.9e12)


def test_a_name_that_no_device_has() -> None:
    (item,) = told(device("H_100"))
    assert (item.code, item.message) == ("E701", "there is no device H_100")
    assert item.help == "devices are a100, b200, cpu, h100, h200, or a file: my-device.yaml"
    (item,) = told(device("H100"))
    assert item.help is not None and item.help.startswith("did you mean h100? devices are ")
    (item,) = told(device("nowhere.yaml"))
    assert item.code == "E100"


def test_the_device_of_the_page_on_planning_is_one() -> None:
    page = (Path(__file__).parents[1] / "docs" / "planning.md").read_text()
    (text,) = re.findall(r"```text\n(name: .*?)```", page, re.S)
    found = described(Source("d.yaml", text))
    assert isinstance(found, Device) and (found.name, found.latency.link) == ("mine", 8e-6)


WRONG = {
    "another key": ("bandwidth", "bandwith", "E201 unknown key bandwith", "did you mean bandwidth? keys here are name"),
    "a key too few": (", fp32: 66.9e12", "", "E202 the key fp32 is missing", "keys here are bf16, fp32"),
    "no ranks": ("node: 8", "node: 0", "E204 node must be at least 1, not 0", ""),
    "a word": ("450e9", "fast", "E205 link must be a number, not fast", ""),
    "a share above one": ("matmul: 0.72", "matmul: 72", "E204 matmul must be at most 1, not 72", ""),
    "a range above the model": ("low: 0.9", "low: 1.1", "E204 low must be at most 1, not 1.1", ""),
    "a key twice": ("node: 8", "node: 8\nnode: 4", "E109 the key node is given twice", ""),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_has_its_place(case: str) -> None:
    old, new, message, help = WRONG[case]
    assert old in TEXT
    (item,) = told(described(Source("d.yaml", TEXT.replace(old, new, 1))))
    assert f"{item.code} {item.message}" == message and (item.help or "").startswith(help)
    assert item.span is not None and item.span.place[0] == TEXT[: TEXT.index(old)].count("\n") + 1 + (
        case == "a key twice"
    )


def told(found: Device | list[Diagnostic]) -> list[Diagnostic]:
    assert isinstance(found, list), found
    return found
