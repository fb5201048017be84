"""Folders of tensors as a class writes them, and commands from one to another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from specc.cli import cli
from specc.interop.plan import Plan
from specc.interop.weights import to_specc


def folder_of(tensors: dict[str, Tensor], place: Path, shards: int = 2) -> Path:
    """Files with an index, as the class writes them."""
    place.mkdir()
    names = sorted(tensors)
    index: dict[str, str] = {}
    for n in range(shards):
        file = f"model-{n + 1:05}-of-{shards:05}.safetensors"
        own = {name: tensors[name] for name in names[n::shards]}
        save_file(own, place / file)
        index |= dict.fromkeys(own, file)
    (place / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    return place


def there_and_back(config: dict[str, Any], folder: Path, at: Path, family: str, *more: str) -> str:
    """Commands from the folder of a model to that of its parameters, b, and back, c; the spec between them."""
    (folder / "config.json").write_text(json.dumps(config))
    spec = str(at / "spec.yaml")
    for words in (
        ("import", str(folder), "-o", spec),
        ("weights", "to-specc", spec, str(folder), "-o", str(at / "b")),
        ("weights", "to-hf", spec, str(at / "b"), "-o", str(at / "c"), "--family", family, *more),
    ):
        result = CliRunner().invoke(cli, words, standalone_mode=False)
        assert result.exception is None and not result.return_value, result.output
    return spec


def refused(wanted: Plan, tensors: dict[str, Tensor], at: Path) -> list[str]:
    """What is told of files that are not those of the plan; nothing is written."""
    found = to_specc(wanted, folder_of(tensors, at / "a"), at / "b")
    assert sorted(path.name for path in at.iterdir()) == ["a"]
    return [f"{item.code} {item.message}" for item in found]


def all_of(place: Path) -> dict[str, Tensor]:
    return {name: tensor for path in place.glob("*.safetensors") for name, tensor in load_file(path).items()}
