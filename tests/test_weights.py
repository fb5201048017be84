"""Folders of weights to specc and back: bits, memory, and what is refused before a byte is written."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from specc.cli import cli
from specc.interop.axes import Misfit, views
from specc.interop.move import joined, to_file, to_own
from specc.interop.plan import Part, Plan
from specc.interop.plan import Tensor as Planned
from specc.interop.weights import to_hf, to_specc
from specc.ir.op import Init, Param
from specc.ir.types import Axis
from tests import zoo
from tests.families import ROWS
from tests.family_parity import plan_of, spec_of
from tests.folders import all_of, folder_of, refused, there_and_back

(GPT2,) = (row for row in ROWS if str(row) == "gpt2")


@pytest.fixture(scope="module")
def wanted() -> Plan:
    return plan_of(*spec_of(GPT2.config()))


def state(wanted: Plan, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {t.name: torch.randn(t.shape, generator=generator).to(dtype) for t in wanted.tensors}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn])
def test_bits_come_back_whatever_the_type(dtype: torch.dtype, wanted: Plan, tmp_path: Path) -> None:
    before = state(wanted, dtype)
    assert to_specc(wanted, folder_of(before, tmp_path / "a"), tmp_path / "b", 30_000) == []
    index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
    assert set(index["weight_map"]) == set(wanted.shapes) and len(set(index["weight_map"].values())) > 1
    assert to_hf(wanted, tmp_path / "b", tmp_path / "c") == []
    after = all_of(tmp_path / "c")
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name].view(torch.uint8), before[name].view(torch.uint8)) for name in before)


def test_names_without_the_prefix_of_the_class_and_masks_are_read(wanted: Plan, tmp_path: Path) -> None:
    before = state(wanted)
    bare = {name.removeprefix("transformer."): tensor for name, tensor in before.items()}
    bare["h.0.attn.bias"] = torch.ones(1, 1, 64, 64)
    assert to_specc(wanted, folder_of(bare, tmp_path / "a"), tmp_path / "b") == []
    assert to_hf(wanted, tmp_path / "b", tmp_path / "c") == []
    after = all_of(tmp_path / "c")
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_tied_tensor_may_stand_twice_if_it_is_the_same(wanted: Plan, tmp_path: Path) -> None:
    before = state(wanted)
    before["lm_head.weight"] = before["transformer.wte.weight"].clone()
    assert to_specc(wanted, folder_of(before, tmp_path / "a"), tmp_path / "b") == []
    before["lm_head.weight"][3, 3] += 1
    found = to_specc(wanted, folder_of(before, tmp_path / "c"), tmp_path / "d")
    assert [item.code for item in found] == ["E647"] and "lm_head.weight" in found[0].message


def _missing(tensors: dict[str, Tensor], _: Path) -> None:
    del tensors["transformer.h.0.ln_1.bias"], tensors["transformer.h.1.ln_1.bias"]


def _extra(tensors: dict[str, Tensor], _: Path) -> None:
    tensors["transformer.h.4.ln_1.bias"] = torch.zeros(32)


def _shape(tensors: dict[str, Tensor], _: Path) -> None:
    tensors["transformer.h.0.mlp.c_fc.weight"] = tensors["transformer.h.0.mlp.c_fc.weight"].T.contiguous()


def _all(tensors: dict[str, Tensor], folder: Path) -> None:
    for change in (_missing, _extra, _shape):
        change(tensors, folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_missing, ["E644 2 tensors missing: transformer.h.{0..1}.ln_1.bias"]),
        (_extra, ["E644 1 tensor that the model does not have: transformer.h.4.ln_1.bias"]),
        (_shape, ["E645 transformer.h.0.mlp.c_fc.weight: [128, 32] in the files, [32, 128] in the model"]),
        (_all, ["E644 2", "E644 1", "E645 t"]),
    ],
)
def test_tensors_that_do_not_fit_are_listed(
    change: Callable[[dict[str, Tensor], Path], None], told: list[str], wanted: Plan, tmp_path: Path
) -> None:
    tensors = state(wanted)
    change(tensors, tmp_path)
    texts = refused(wanted, tensors, tmp_path)
    assert len(texts) == len(told) and all(a.startswith(b) for a, b in zip(texts, told, strict=True)), texts


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def _cut(folder: Path) -> None:
    data = (folder / FIRST).read_bytes()
    (folder / FIRST).write_bytes(data[: len(data) // 2])


def _pickled(folder: Path) -> None:
    (folder / FIRST).write_bytes(pickle.dumps({"a": 1}))


def _zipped(folder: Path) -> None:
    torch.save({"a": torch.zeros(1)}, folder / FIRST)


def _empty(folder: Path) -> None:
    (folder / FIRST).write_bytes(b"")


def _gone(folder: Path) -> None:
    (folder / SECOND).unlink()


def _folder_gone(folder: Path) -> None:
    folder.rename(folder.with_name("moved"))


def _bins(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"")


def _index(change: Callable[[dict[str, str]], object]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        place = folder / "model.safetensors.index.json"
        index = json.loads(place.read_text())
        change(index["weight_map"])
        place.write_text(json.dumps(index))

    return changed


@pytest.mark.parametrize(
    ("damage", "code", "words"),
    [
        (_cut, "E642", "damaged or cut short"),
        (_pickled, "E642", "is a pickle"),
        (_zipped, "E642", "is a pickle"),
        (_empty, "E642", "damaged or cut short"),
        (_gone, "E642", "not there"),
        (_folder_gone, "E641", "no such folder"),
        (_bins, "E641", "pytorch_model.bin, which may run code"),
        (_index(lambda names: names.pop("transformer.wte.weight")), "E643", "which the index does not say"),
        (_index(lambda names: names.update(more=FIRST)), "E643", "says that it holds more"),
        (_index(lambda names: names.update(more=f"../{FIRST}")), "E643", "outside of the folder"),
    ],
)
def test_damaged_files_are_told_and_nothing_is_written(
    damage: Callable[[Path], None], code: str, words: str, wanted: Plan, tmp_path: Path
) -> None:
    folder = folder_of(state(wanted), tmp_path / "a")
    damage(folder)
    before = sorted(path.name for path in tmp_path.iterdir())
    found = to_specc(wanted, folder, tmp_path / "b")
    assert [item.code for item in found] == [code] and words in found[0].message
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_parts_of_one_tensor_are_of_one_type(wanted: Plan, tmp_path: Path) -> None:
    assert to_specc(wanted, folder_of(state(wanted), tmp_path / "a"), tmp_path / "b") == []
    own = all_of(tmp_path / "b")
    own["layers.1.attention.k.weight"] = own["layers.1.attention.k.weight"].half()
    found = to_hf(wanted, folder_of(own, tmp_path / "c"), tmp_path / "d")
    assert [item.code for item in found] == ["E646"] and "h.1.attn.c_attn.weight" in found[0].message


def test_nothing_is_left_where_writing_fails(wanted: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = folder_of(state(wanted), tmp_path / "a")
    calls: list[int] = []

    def fails(pieces: list[tuple[Part, Tensor]]) -> Tensor:
        calls.append(1)
        if len(calls) == 9:
            raise OSError(28, "No space left on device")
        return joined(pieces)

    monkeypatch.setattr("specc.interop.weights.joined", fails)
    with pytest.raises(OSError, match="No space"):
        to_specc(wanted, folder, tmp_path / "b")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a"]


def test_a_folder_with_something_in_it_is_not_touched(wanted: Plan, tmp_path: Path) -> None:
    folder = folder_of(state(wanted), tmp_path / "a")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "mine").write_text("")
    with pytest.raises(FileExistsError):
        to_specc(wanted, folder, tmp_path / "b")
    assert [path.name for path in (tmp_path / "b").iterdir()] == ["mine"]


def test_commands_go_there_and_back(wanted: Plan, tmp_path: Path) -> None:
    before = state(wanted)
    folder = folder_of(before, tmp_path / "a")
    spec = there_and_back(GPT2.config().to_dict(), folder, tmp_path, "gpt2")
    after = all_of(tmp_path / "c")
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert json.loads((tmp_path / "c" / "config.json").read_text())["n_embd"] == 32
    words = ("weights", "to-hf", spec, str(folder), "-o", str(tmp_path / "d"), "--family", "gpt2")
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    assert result.return_value == 1 and "E644" in result.output and not (tmp_path / "d").exists()


WIDE = """
specc: 1
name: wide
d_model: 384
vocab: 97
norm: {kind: layer}
embedding: {positions: learned, tied: true}
decoder:
  layers: 7
  block:
    - attention: {heads: 4, bias: true}
    - ffn: {hidden: 1536, bias: true}
"""
SPARSE = """
specc: 1
name: sparse
d_model: 384
vocab: 97
decoder:
  layers: 7
  block:
    - attention: {heads: 4, rope: {}}
    - moe: {experts: 8, top_k: 2, kind: gated, hidden: 192}
"""


@pytest.mark.parametrize(("family", "spec"), [("gpt2", WIDE), ("mixtral", SPARSE)])
def test_memory_stays_near_the_largest_tensor(family: str, spec: str, tmp_path: Path) -> None:
    """48 MB of weights, 2 MB the largest: what a process has of its own grows by less than 12, both ways."""
    script = (
        f"FAMILY = {family!r}"
        + """
import re, sys
from pathlib import Path
import torch
from specc.interop import weights
from specc.interop.plan import parameters, plan
from specc.interop.library import known
from specc.lower import lower
from specc.source import Source
from specc.spec import load
from safetensors.torch import save_file
text = Path("spec.yaml").read_text()
wanted = plan(known(FAMILY), parameters(lower(load(Source("spec.yaml", text)).model)))
wanted = wanted.hub or wanted
Path("a").mkdir()
for n, tensor in enumerate(wanted.tensors):
    save_file({tensor.name: torch.ones(tensor.shape)}, f"a/{n}.safetensors")
def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1000
most, own, back = 0, weights.joined, weights.to_file
def noted(made):
    global most
    most = max(most, held())
    return made
weights.joined = lambda *args: noted(own(*args))
weights.to_file = lambda *args: noted(back(*args))
start = held()
assert weights.to_specc(wanted, Path("a"), Path("b")) == []
assert weights.to_hf(wanted, Path("b"), Path("c")) == []
size = sum(path.stat().st_size for path in Path("b").iterdir()) / 1e6
print(size, most - start)
"""
    )
    (tmp_path / "spec.yaml").write_text(spec)
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc")
    environment = {**os.environ, "PYTHONPATH": str(zoo.ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    size, grown = map(float, result.stdout.split())
    assert size > 45 and grown < 12, (size, grown)


def param(*axes: Axis) -> Param:
    return Param(("p",), axes, Init("zeros"), "linear")


def _joint(sizes: dict[str, int]) -> Axis:
    return Axis.of(**sizes)


@settings(max_examples=40)
@given(data=st.data())
def test_a_fused_tensor_is_what_its_axes_say(data: st.DataObject) -> None:
    """Against the definition: rows of heads, of groups of heads, or one part after the other."""
    kv_heads, shared, head_dim, d_model = (data.draw(st.integers(1, 4)) for _ in range(4))
    form = data.draw(st.sampled_from(["([q k v]) d_model", "d_model ([q k v])", "(kv_heads [q k v]) d_model"]))
    parts = {"q": {"heads": kv_heads * shared}, "k": {"kv_heads": kv_heads}, "v": {"kv_heads": kv_heads}}
    features = Axis("d_model", d_model)
    params = [(name, param(_joint({**own, "head_dim": head_dim}), features)) for name, own in parts.items()]
    order = data.draw(st.permutations(params))
    made = dict(zip((name for name, _ in order), views(form, order, tuple("qkv")), strict=True))
    tensors = {name: torch.randn(made[name].own) for name in made}
    planned = Planned("t", made["q"].shape, tuple(Part(name, view) for name, view in made.items()))
    whole = to_file(planned, tensors.__getitem__)
    if form.startswith("(kv_heads"):
        groups = [tensors[name].view(kv_heads, -1, d_model) for name in "qkv"]
        expected = torch.cat(groups, 1).reshape(-1, d_model)
    else:
        expected = torch.cat([tensors[name] for name in "qkv"])
    assert torch.equal(whole, expected.T if form.startswith("d_model") else expected)
    assert all(torch.equal(to_own(whole, Part(name, made[name])), tensors[name]) for name in made)


def test_pairs_of_a_rope_and_other_orders() -> None:
    own = param(Axis.of(heads=2, head_dim=6), Axis("d_model", 3))
    (view,) = views("(heads pairs 2) d_model -> (heads 2 pairs) d_model", [("", own)], ())
    whole = torch.randn(12, 3)
    expected = whole.view(2, 3, 2, 3).transpose(1, 2).reshape(12, 3)
    assert torch.equal(to_own(whole, Part("p", view)), expected)
    planned = Planned("t", view.shape, (Part("p", view),))
    assert torch.equal(to_file(planned, lambda _: expected), whole)
    (view,) = views("(heads pairs 2) d_model -> (heads 2 pairs) d_model", [("", param(own.axes[0]))], ())
    assert torch.equal(to_own(whole[:, 0], Part("p", view)), expected[:, 0])
    (view,) = views("(heads 2 pairs) d_model -> (heads 2 pairs) d_model", [("", own)], (), flip="2")
    turned = whole.view(2, 2, 3, 3).flip(1).reshape(12, 3)
    assert torch.equal(to_own(whole, Part("p", view)), turned)
    assert torch.equal(to_file(Planned("t", view.shape, (Part("p", view),)), lambda _: turned), whole)


@pytest.mark.parametrize("axes", ["d_model ffn", "(heads 4) d_model", "([q]) vocab", "heads head_dim d_model -> heads"])
def test_axes_that_do_not_fit_are_refused(axes: str) -> None:
    with pytest.raises(Misfit):
        views(axes, [("q", param(Axis.of(heads=2, head_dim=6), Axis("d_model", 3)))], ("q",))


def test_a_sum_that_loses_bits_is_refused(wanted: Plan, tmp_path: Path) -> None:
    from dataclasses import replace

    first = next(t for t in wanted.tensors if t.name.endswith("ln_1.weight"))
    changed = replace(first, parts=tuple(replace(part, add=1.0) for part in first.parts))
    plan = replace(wanted, tensors=tuple(changed if t is first else t for t in wanted.tensors))
    exact = {name: torch.round(tensor * 8) / 8 for name, tensor in state(wanted).items()}
    assert to_specc(plan, folder_of(exact, tmp_path / "a"), tmp_path / "b") == []
    name = first.parts[0].name
    assert torch.equal(all_of(tmp_path / "b")[name], exact[first.name] + 1)
    found = to_specc(plan, folder_of(state(wanted), tmp_path / "c"), tmp_path / "d")
    assert [item.code for item in found] == ["E648"] and not (tmp_path / "d").exists()
