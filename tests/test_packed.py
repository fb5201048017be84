"""Files of few bits a number, as the hub has them, are read as what transformers unpacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from specc.interop.packed import mxfp4
from specc.interop.plan import Plan
from specc.interop.weights import to_specc
from tests.families import ROWS, Row
from tests.family_parity import plan_of, spec_of
from tests.folders import all_of, folder_of, refused, there_and_back

(SMALL,) = (row for row in ROWS if str(row) == "gpt_oss")
ROW: Row = replace(SMALL, sizes={**SMALL.sizes, "hidden_size": 64, "intermediate_size": 96})
EXPERTS = "model.layers.{}.mlp.experts.{}"
LAYERS, FUSED = 4, ("gate_up_proj", "down_proj")


@pytest.fixture(scope="module")
def wanted() -> Plan:
    return plan_of(*spec_of(ROW.config()))


@pytest.fixture
def published(wanted: Plan) -> dict[str, Tensor]:
    """As openai/gpt-oss-20b has them: experts as `_blocks` of bytes and `_scales`, the rest in bfloat16."""
    generator = torch.Generator().manual_seed(0)
    made: dict[str, Tensor] = {}
    for tensor in wanted.tensors:
        if tensor.name.endswith(FUSED):
            experts, inner, outer = tensor.shape
            blocks = (experts, outer, inner // 32, 16)
            made[f"{tensor.name}_blocks"] = torch.randint(0, 256, blocks, generator=generator, dtype=torch.uint8)
            made[f"{tensor.name}_scales"] = torch.randint(90, 150, blocks[:3], generator=generator, dtype=torch.uint8)
        else:
            made[tensor.name] = torch.randn(tensor.shape, generator=generator).bfloat16()
    return made


def unpacked(published: dict[str, Tensor]) -> dict[str, Tensor]:
    """As the class holds them once it has read such files without kernels for them."""
    made = {name: tensor for name, tensor in published.items() if not name.endswith(("_blocks", "_scales"))}
    for layer in range(LAYERS):
        for fused in FUSED:
            name = EXPERTS.format(layer, fused)
            made[name] = convert_moe_packed_tensors(published[f"{name}_blocks"], published[f"{name}_scales"])
    return {name: tensor.contiguous() for name, tensor in made.items()}


def test_every_byte_is_what_transformers_makes_of_it() -> None:
    """All pairs of numbers, with every power but the one that is none."""
    blocks = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 255, 16, 16).contiguous()
    scales = torch.arange(255, dtype=torch.uint8).view(1, 255, 1).expand(1, 255, 16).contiguous()
    theirs = convert_moe_packed_tensors(blocks, scales).transpose(1, 2).contiguous()
    ours = mxfp4(blocks, scales)
    assert ours.shape == (1, 255, 512) and torch.equal(ours.view(torch.int16), theirs.view(torch.int16))
    assert ours[0, 128, 4].item() == 2.0 and ours[0, 127, 32 + 1].item() == 0.5  # 0x02 is 1 and 0, 0x10 is 0 and 0.5


def test_packed_files_are_the_parameters_of_those_that_the_class_holds(
    wanted: Plan, published: dict[str, Tensor], tmp_path: Path
) -> None:
    assert to_specc(wanted, folder_of(published, tmp_path / "a"), tmp_path / "b") == []
    assert to_specc(wanted, folder_of(unpacked(published), tmp_path / "c"), tmp_path / "d") == []
    ours, theirs = all_of(tmp_path / "b"), all_of(tmp_path / "d")
    assert ours.keys() == theirs.keys() == wanted.shapes.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == torch.bfloat16 and torch.equal(tensor, theirs[name]), name


def _no_scales(tensors: dict[str, Tensor]) -> None:
    for layer in (1, 2):
        del tensors[EXPERTS.format(layer, "down_proj_scales")]


def _flat(tensors: dict[str, Tensor]) -> None:
    name = EXPERTS.format(0, "down_proj_blocks")
    tensors[name] = tensors[name].flatten(-2)


def _wide(tensors: dict[str, Tensor]) -> None:
    name = EXPERTS.format(3, "gate_up_proj_scales")
    tensors[name] = tensors[name].float()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (_no_scales, "E644 2 tensors missing: model.layers.{1..2}.mlp.experts.down_proj_scales"),
        (
            _flat,
            "E645 model.layers.0.mlp.experts.down_proj_blocks: [6, 64, 48] in the files, [6, 64, 3, 16] in the model",
        ),
        (_wide, "E646 model.layers.3.mlp.experts.gate_up_proj_scales is of the type F32; what is packed is U8"),
    ],
)
def test_packed_files_that_do_not_fit(
    change: Callable[[dict[str, Tensor]], None],
    told: str,
    wanted: Plan,
    published: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    change(published)
    assert refused(wanted, published, tmp_path) == [told]


def test_a_model_whose_sizes_are_no_blocks_has_no_packed_files() -> None:
    assert plan_of(*spec_of(ROW.config())).packed is not None
    odd = replace(ROW, sizes={**ROW.sizes, "intermediate_size": 48})
    assert plan_of(*spec_of(odd.config())).packed is None


def test_commands_read_packed_files_and_write_those_of_the_class(published: dict[str, Tensor], tmp_path: Path) -> None:
    folder = folder_of(published, tmp_path / "a")
    config = ROW.config().to_dict() | {"quantization_config": {"quant_method": "mxfp4"}}
    there_and_back(config, folder, tmp_path, "gpt_oss")
    back, whole = all_of(tmp_path / "c"), unpacked(published)
    assert back.keys() == whole.keys() and all(torch.equal(back[name], whole[name]) for name in back)
    assert "quantization_config" not in json.loads((tmp_path / "c" / "config.json").read_text())
