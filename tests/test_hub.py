"""Folders as the hub has them: a tensor for each expert, older names; read as those of the class are, and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from specc.interop.library import known
from specc.interop.plan import Plan, parameters, plan
from specc.interop.schema import Weight
from specc.interop.weights import listed, to_hf, to_specc
from specc.lower import lower
from tests.families import ROWS
from tests.family_parity import plan_of, spec_of
from tests.folders import all_of, folder_of, refused, there_and_back

(MIXTRAL,) = (row for row in ROWS if str(row) == "mixtral")
LAYERS, EXPERTS, D_MODEL, HIDDEN = 4, 6, 32, 48


@pytest.fixture(scope="module")
def wanted() -> Plan:
    return plan_of(*spec_of(MIXTRAL.config()))


@pytest.fixture
def published() -> dict[str, Tensor]:
    """As mistralai/Mixtral-8x7B-v0.1 has them."""
    sizes = {"q": (32, 32), "k": (16, 32), "v": (16, 32), "o": (32, 32)}
    shapes = {"model.embed_tokens.weight": (96, 32), "model.norm.weight": (32,), "lm_head.weight": (96, 32)}
    for i in range(LAYERS):
        at = f"model.layers.{i}"
        shapes |= {f"{at}.{name}.weight": (32,) for name in ("input_layernorm", "post_attention_layernorm")}
        shapes |= {f"{at}.self_attn.{name}_proj.weight": size for name, size in sizes.items()}
        shapes[f"{at}.block_sparse_moe.gate.weight"] = (EXPERTS, D_MODEL)
        for e in range(EXPERTS):
            shapes |= {f"{at}.block_sparse_moe.experts.{e}.{w}.weight": (HIDDEN, D_MODEL) for w in ("w1", "w3")}
            shapes[f"{at}.block_sparse_moe.experts.{e}.w2.weight"] = (D_MODEL, HIDDEN)
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator).bfloat16() for name, shape in shapes.items()}


def test_a_tensor_for_each_expert(wanted: Plan, published: dict[str, Tensor], tmp_path: Path) -> None:
    assert to_specc(wanted, folder_of(published, tmp_path / "a", shards=3), tmp_path / "b") == []
    own = all_of(tmp_path / "b")
    for i in range(LAYERS):
        for ours, theirs in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
            names = [f"model.layers.{i}.block_sparse_moe.experts.{e}.{theirs}.weight" for e in range(EXPERTS)]
            assert torch.equal(own[f"layers.{i}.moe.{ours}.weight"], torch.stack([published[name] for name in names]))
        gate = published[f"model.layers.{i}.block_sparse_moe.gate.weight"]
        assert torch.equal(own[f"layers.{i}.moe.router.weight"], gate)
    assert wanted.hub is not None and to_hf(wanted.hub, tmp_path / "b", tmp_path / "c", 30_000) == []
    back = all_of(tmp_path / "c")
    assert back.keys() == published.keys() and all(torch.equal(back[name], published[name]) for name in back)


def test_both_forms_are_the_same_parameters(wanted: Plan, published: dict[str, Tensor], tmp_path: Path) -> None:
    assert to_specc(wanted, folder_of(published, tmp_path / "a"), tmp_path / "b") == []
    assert to_hf(wanted, tmp_path / "b", tmp_path / "stacked") == []
    stacked, at = all_of(tmp_path / "stacked"), "model.layers.1"
    assert len(stacked) == 3 + 9 * LAYERS
    both = stacked[f"{at}.mlp.experts.gate_up_proj"][3]
    parts = [published[f"{at}.block_sparse_moe.experts.3.{name}.weight"] for name in ("w1", "w3")]
    assert torch.equal(both, torch.cat(parts))
    assert to_specc(wanted, tmp_path / "stacked", tmp_path / "again") == []
    one, other = all_of(tmp_path / "b"), all_of(tmp_path / "again")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


MOE = "model.layers.{}.block_sparse_moe.experts.{}.{}.weight"


def _one(tensors: dict[str, Tensor]) -> None:
    del tensors[MOE.format(2, 4, "w3")]


def _some(tensors: dict[str, Tensor]) -> None:
    for i in range(LAYERS):
        for e in (3, 4, 5):
            del tensors[MOE.format(i, e, "w2")]


def _more(tensors: dict[str, Tensor]) -> None:
    tensors[MOE.format(0, EXPERTS, "w1")] = tensors[MOE.format(0, 0, "w1")].clone()


def _turned(tensors: dict[str, Tensor]) -> None:
    tensors[MOE.format(1, 0, "w1")] = tensors[MOE.format(1, 0, "w1")].T.contiguous()


def _cast(tensors: dict[str, Tensor]) -> None:
    tensors[MOE.format(1, 5, "w2")] = tensors[MOE.format(1, 5, "w2")].float()


def _mixed(tensors: dict[str, Tensor]) -> None:
    for e in range(EXPERTS):
        del tensors[MOE.format(0, e, "w2")]
    tensors["model.layers.0.mlp.experts.down_proj"] = torch.zeros(EXPERTS, D_MODEL, HIDDEN).bfloat16()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_one, ["E644 1 tensor missing: model.layers.2.block_sparse_moe.experts.4.w3.weight"]),
        (_some, ["E644 12 tensors missing: model.layers.{0..3}.block_sparse_moe.experts.{3..5}.w2.weight"]),
        (_more, ["E644 1 tensor that the model does not have: model.layers.0.block_sparse_moe.experts.6.w1.weight"]),
        (
            _turned,
            ["E645 model.layers.1.block_sparse_moe.experts.0.w1.weight: [32, 48] in the files, [48, 32] in the model"],
        ),
        (
            _cast,
            [
                "E646 layers.1.moe.down.weight is made of model.layers.1.block_sparse_moe.experts.{0..5}.w2.weight,"
                " which are of the types BF16, F32"
            ],
        ),
        (
            _mixed,
            [
                "E644 6 tensors missing: model.layers.0.block_sparse_moe.experts.{0..5}.w2.weight",
                "E644 1 tensor that the model does not have: model.layers.0.mlp.experts.down_proj",
            ],
        ),
    ],
)
def test_experts_that_do_not_fit_are_listed(
    change: Callable[[dict[str, Tensor]], None],
    told: list[str],
    wanted: Plan,
    published: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    change(published)
    assert refused(wanted, published, tmp_path) == told


def test_names_that_differ_in_several_numbers_are_one() -> None:
    names = [f"l.{i}.e.{e}.w" for i in (0, 1) for e in (0, 1, 2)]
    assert listed(names) == "l.{0..1}.e.{0..2}.w"
    assert listed(names[1:]) == "l.0.e.{1..2}.w, l.1.e.{0..2}.w"
    assert listed(["norm", "l.7.w", "l.5.w", *names[:1]]) == "norm, l.7,5.w, l.0.e.0.w"


def test_an_index_that_is_no_axis_is_told() -> None:
    _, model = spec_of(MIXTRAL.config())
    mapping = known("mixtral")
    name = "layers.{i}.moe.down.weight"
    place = Weight(hf="model.layers.{i}.mlp.experts.down_proj", hub="model.layers.{i}.experts.{expert}.w2.weight")
    broken = mapping.model_copy(update={"weights": {**mapping.weights, name: place}})
    found = plan(broken, parameters(lower(model)))
    assert isinstance(found, list) and len(found) == LAYERS and {item.code for item in found} == {"E640"}
    assert "layers.0.moe.down.weight has no axis expert, only experts, d_model, ffn" in found[0].message


@pytest.mark.parametrize("form", ["hub", "class"])
def test_commands_write_either_form(form: str, published: dict[str, Tensor], tmp_path: Path) -> None:
    folder = folder_of(published, tmp_path / "a")
    more = ("--form", "class") if form == "class" else ()
    there_and_back(MIXTRAL.config().to_dict(), folder, tmp_path, "mixtral", *more)
    back = all_of(tmp_path / "c")
    assert (back.keys() == published.keys()) == (form == "hub")
    assert ("model.layers.0.mlp.experts.down_proj" in back) == (form == "class")
