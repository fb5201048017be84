"""Configs and folders of weights that are wrong, as commands meet them: told, and nothing is half-written."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from specc.cli import cli
from specc.interop.plan import Plan
from tests.families import ROWS
from tests.family_parity import plan_of, spec_of

(LLAMA,) = (row for row in ROWS if str(row) == "llama")
FILE = "model.safetensors"
FIRST = "model.layers.0.mlp.up_proj.weight"


@pytest.fixture(scope="module")
def wanted() -> Plan:
    return plan_of(*spec_of(LLAMA.config()))


@pytest.fixture
def folder(wanted: Plan, tmp_path: Path) -> Path:
    """A config with its weights, and beside it the spec that is made of the config."""
    made = tmp_path / "theirs"
    made.mkdir()
    (made / "config.json").write_text(json.dumps(LLAMA.config().to_dict()))
    assert run("import", str(made), "-o", str(tmp_path / "spec.yaml"))[0] == 0
    save_file({tensor.name: torch.ones(tensor.shape) for tensor in wanted.tensors}, made / FILE)
    return made


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value or 0, result.output


def everything(place: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(place)): path.read_bytes() if path.is_file() else None for path in sorted(place.rglob("*"))
    }


def move(command: str, folder: Path) -> tuple[int, str]:
    around = folder.parent
    family = ("--family", "llama") if command == "to-hf" else ()
    return run("weights", command, str(around / "spec.yaml"), str(folder), "-o", str(around / "new"), *family)


def refused(command: str, folder: Path, code: str, words: str) -> None:
    before = everything(folder.parent)
    result, out = move(command, folder)
    assert result == 1 and f"error[{code}]" in out and words in out, out
    assert "nothing is written" in out and everything(folder.parent) == before


def test_the_folder_is_moved_while_nothing_is_wrong_with_it(folder: Path) -> None:
    assert move("to-specc", folder)[0] == 0
    assert (folder.parent / "new" / FILE).is_file()


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], str, str]] = {
    "an unknown family": (lambda c: c.update(model_type="lama"), "E610", "no mapping for the family lama"),
    "a family that specc cannot say": (lambda c: c.update(model_type="rwkv"), "E617", "rwkv mixes tokens"),
    "no family": (lambda c: c.pop("model_type"), "E610", "no model_type"),
    "fields that contradict each other": (lambda c: c.update(rope_theta=5.0), "E603", "contradict each other"),
}
READ = {
    "a field that no mapping names": (lambda c: c.update(head_size=8), "E602", "does not name the field head_size = 8"),
    "a value that is not there": (lambda c: c.update(hidden_act="mish"), "E604", "mish has no counterpart"),
    "a value that must be another": (lambda c: c.update(pretraining_tp=2), "E601", "pretraining_tp = 2"),
    "sizes that do not fit": (lambda c: c.update(num_key_value_heads=3), "E606", "num_key_value_heads"),
} | CONFIGS
"""What is wrong with a config, its code and words; the first four stop weights, too."""


@pytest.mark.parametrize("name", READ)
def test_a_config_that_is_wrong(name: str, folder: Path) -> None:
    change, code, words = READ[name]
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    before = everything(folder.parent)
    result, out = run("import", str(folder), "-o", str(folder.parent / "other.yaml"))
    assert result == 1 and f"error[{code}]" in out and words in out and "config.json:" in out, out
    assert everything(folder.parent) == before
    if name in CONFIGS:
        refused("to-specc", folder, code, words)


@pytest.mark.parametrize("text", ["", "[1]", '{"model_type": "llama",', "\x80\x04"])
def test_a_config_that_is_none(text: str, folder: Path) -> None:
    (folder / "config.json").write_text(text, encoding="latin-1")
    before = everything(folder.parent)
    result, out = run("import", str(folder), "-o", str(folder.parent / "other.yaml"))
    assert result in (1, 2) and "error[E" in out and everything(folder.parent) == before
    result, out = move("to-specc", folder)
    assert result in (1, 2) and "error[E" in out and everything(folder.parent) == before


def _header(file: Path) -> tuple[dict[str, Any], bytes]:
    data = file.read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _put(file: Path, header: object, data: bytes) -> None:
    text = json.dumps(header).encode() if not isinstance(header, bytes) else header
    text += b" " * (-len(text) % 8)
    file.write_bytes(len(text).to_bytes(8, "little") + text + data)


def _changed(change: Callable[[dict[str, Any]], object], more: bytes = b"") -> Callable[[Path], None]:
    def damage(file: Path) -> None:
        header, data = _header(file)
        change(header)
        _put(file, header, data + more)

    return damage


def _says(**fields: Any) -> Callable[[dict[str, Any]], None]:
    """The header says this of a tensor."""
    return lambda header: header[FIRST].update(fields)


def _last(header: dict[str, Any]) -> None:
    """The last tensor goes beyond the end of the file: twice as many rows as there are."""
    tensor = max((row for name, row in header.items() if name != "__metadata__"), key=lambda row: row["data_offsets"])
    start, end = tensor["data_offsets"]
    tensor["data_offsets"] = [start, end + (end - start)]
    tensor["shape"][0] *= 2


def _over(header: dict[str, Any]) -> None:
    """Two tensors in one place."""
    names = [name for name in header if name.endswith("mlp.up_proj.weight")]
    header[names[0]]["data_offsets"] = header[names[1]]["data_offsets"]


FILES: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "cut in the tensors": (lambda f: f.write_bytes(f.read_bytes()[:-1000]), "E642", "damaged or cut short"),
    "cut in the header": (lambda f: f.write_bytes(f.read_bytes()[:100]), "E642", "damaged or cut short"),
    "cut in the length": (lambda f: f.write_bytes(f.read_bytes()[:5]), "E642", "damaged or cut short"),
    "a header that is longer than the file": (
        lambda f: f.write_bytes((1 << 20).to_bytes(8, "little") + f.read_bytes()[8:]),
        "E642",
        "damaged or cut short",
    ),
    "a length without end": (lambda f: f.write_bytes(b"\xff" * 8 + f.read_bytes()[8:]), "E642", "damaged or cut short"),
    "a header that is no JSON": (lambda f: _put(f, b'{"a": [', _header(f)[1]), "E642", "damaged or cut short"),
    "a tensor beyond the end": (_changed(_last), "E642", "damaged or cut short"),
    "a shape of more than its bytes": (_changed(_says(shape=[480, 32])), "E642", "damaged or cut short"),
    "two tensors in one place": (_changed(_over), "E642", "damaged or cut short"),
    "bytes that no tensor has": (_changed(lambda header: None, b"\0" * 64), "E642", "damaged or cut short"),
    "a type that nobody knows": (_changed(_says(dtype="F31")), "E642", "damaged or cut short"),
    "a pickle of its name": (lambda f: torch.save({"a": torch.zeros(1)}, f), "E642", "is a pickle"),
    "an old pickle of its name": (lambda f: f.write_bytes(pickle.dumps({"a": 1})), "E642", "is a pickle"),
    "a folder of its name": (lambda f: (f.unlink(), f.mkdir()), "E642", "it cannot be read: Is a directory"),
    "a pickle beside nothing": (
        lambda f: (f.unlink(), torch.save({}, f.with_name("pytorch_model.bin"))),
        "E641",
        "pytorch_model.bin, which may run code",
    ),
    "a pickle of another name": (lambda f: f.rename(f.with_name("model.pt")), "E641", "model.pt, which may run code"),
    "nothing": (lambda f: f.unlink(), "E641", "no *.safetensors"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_wrong(name: str, folder: Path) -> None:
    damage, code, words = FILES[name]
    damage(folder / FILE)
    refused("to-specc", folder, code, words)


def test_a_pickle_that_is_named_itself_is_not_read(folder: Path) -> None:
    pickled = folder / "pytorch_model.bin"
    torch.save({FIRST: torch.ones(1)}, pickled)
    before = everything(folder.parent)
    spec = str(folder.parent / "spec.yaml")
    result, out = run("weights", "to-specc", spec, str(pickled), "-o", str(folder.parent / "new"), "--family", "llama")
    assert result == 1 and "error[E642]" in out and "is a pickle" in out and everything(folder.parent) == before


TENSORS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str, str]] = {
    "missing": (lambda t: t.pop(FIRST), "E644", f"1 tensor missing: {FIRST}"),
    "more": (lambda t: t.update({"model.more": torch.ones(2)}), "E644", "does not have: model.more"),
    "turned": (lambda t: t.update({FIRST: t[FIRST].T.contiguous()}), "E645", "[32, 48] in the files, [48, 32]"),
    "one axis more": (lambda t: t.update({FIRST: t[FIRST][None]}), "E645", "[1, 48, 32] in the files, [48, 32]"),
    "without rows": (lambda t: t.update({FIRST: t[FIRST][:0]}), "E645", "[0, 32] in the files, [48, 32]"),
}


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_that_do_not_fit(name: str, folder: Path) -> None:
    change, code, words = TENSORS[name]
    tensors = load_file(folder / FILE)
    change(tensors)
    save_file(tensors, folder / FILE)
    refused("to-specc", folder, code, words)


def test_weights_of_another_spec(folder: Path) -> None:
    spec = folder.parent / "spec.yaml"
    spec.write_text(spec.read_text().replace("hidden: 48", "hidden: 56"))
    refused("to-specc", folder, "E645", "[48, 32] in the files, [56, 32] in the model")


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-1000]), "E642", "damaged or cut short"),
        (_changed(_last), "E642", "damaged or cut short"),
        (lambda f: torch.save({}, f), "E642", "is a pickle"),
        (lambda f: save_file({**load_file(f), "more": torch.ones(2)}, f), "E644", "does not have: more"),
        (lambda f: save_file({"norm.weight": torch.ones(32)}, f), "E644", "missing"),
    ],
)
def test_the_way_back(damage: Callable[[Path], object], code: str, words: str, folder: Path) -> None:
    assert move("to-specc", folder)[0] == 0
    own = (folder.parent / "new").rename(folder.parent / "own")
    damage(own / FILE)
    refused("to-hf", own, code, words)
