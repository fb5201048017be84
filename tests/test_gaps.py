"""What import says of families that the language does not have: every reason, at its field, and nothing written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from transformers import AutoConfig

from specc.cli import cli
from specc.interop.fields import Fields, split
from specc.interop.gaps import Gap, asking
from specc.interop.importing import Imported, import_config
from specc.interop.library import families, gaps
from specc.source import Diagnostic, Source, parse, span_of
from specc.spec import Spec, load

PER_LAYER = "hidden_size_per_layer_input"
CASES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "gemma3n": (
        {},
        [
            "E620 vision_config",
            "E611 text_config.altup_num_inputs",
            "E611 text_config.laurel_rank",
            f"E612 text_config.{PER_LAYER}",
            "E616 text_config.activation_sparsity_pattern",
        ],
    ),
    "gemma3n_text": (
        {},
        ["E611 altup_num_inputs", "E611 laurel_rank", f"E612 {PER_LAYER}", "E616 activation_sparsity_pattern"],
    ),
    "deepseek_v4": ({}, ["E611 hc_mult", "E613 index_topk", "E615 mlp_layer_types"]),
    "qwen4_exp": ({}, ["E620 vision_config", "E611 text_config.hc_count", "E613 text_config.layer_types"]),
    "qwen4_exp_text": ({"ple_layer_ids": [2]}, ["E611 hc_count", "E612 ple_layer_ids", "E613 layer_types"]),
    "gemma4_text": ({}, [f"E612 {PER_LAYER}"]),
    "deepseek_v32": ({}, ["E613 index_topk"]),
    "glm_moe_dsa": ({}, ["E613 index_topk"]),
    "minimax_m3_vl": ({}, ["E620 vision_config"]),
    "minimax_m3_vl_text": ({"layer_types": ["full_attention", "minimax_m3_sparse"]}, ["E613 layer_types"]),
    "phimoe": ({}, ["E614 router_jitter_noise"]),
    "switch_transformers": ({}, ["E615 expert_capacity"]),
    "hrm_text": ({}, ["E615 H_cycles"]),
    "deberta": ({"relative_attention": True, "pos_att_type": ["c2p"]}, ["E616 relative_attention"]),
    "deberta-v2": ({"relative_attention": True}, ["E616 relative_attention"]),
    "xlnet": ({}, ["E616 attn_type"]),
    "diffllama": ({}, ["E616 lambda_std_dev"]),
    "t5gemma2": ({}, ["E616 decoder", "E620 encoder", "E616 decoder.model_type"]),
    "t5gemma2_decoder": ({}, ["E616 model_type"]),
    "jetmoe": ({}, ["E616 num_local_experts"]),
    "longt5": ({}, ["E616 encoder_attention_type"]),
    "reformer": ({}, ["E616 attn_layers", "E621 axial_pos_embds"]),
    "big_bird": ({}, ["E616 attention_type"]),
    "funnel": ({}, ["E616 attention_type", "E619 block_sizes"]),
    "rwkv": ({}, ["E617 attention_hidden_size"]),
    "xlstm": ({}, ["E617 num_blocks"]),
    "fnet": ({}, ["E617 use_tpu_fourier_optimizations"]),
    "zaya": ({}, ["E617 cca_time0"]),
    "inkling_mm_model": ({}, ["E620 vision_config", "E617 text_config.conv_kernel_size"]),
    "inkling_text": ({}, ["E617 conv_kernel_size"]),
    "doge": ({}, ["E617 keep_window_size"]),
    "zamba": ({}, ["E618 attn_layer_period", "E617 n_mamba_heads"]),
    "zamba2": ({}, ["E618 layers_block_type"]),
    "swin": ({}, ["E619 depths"]),
    "convnext": ({}, ["E619 hidden_sizes"]),
    "pvt": ({}, ["E619 hidden_sizes"]),
    "hiera": ({}, ["E619 depths"]),
    "clip": ({}, ["E620 vision_config"]),
    "siglip": ({}, ["E620 vision_config"]),
    "llava": ({}, ["E620 vision_config"]),
    "gemma3": ({}, ["E620 vision_config"]),
    "qwen2_vl": ({}, ["E620 vision_config", "E621 text_config"]),
    "qwen2_5_vl": ({}, ["E620 vision_config", "E621 text_config"]),
    "qwen3_vl": ({}, ["E620 vision_config", "E621 text_config"]),
    "dinov3_vit": ({}, ["E621 rope_theta"]),
    "wav2vec2": ({}, ["E622 num_conv_pos_embeddings", "E622 feat_extract_norm", "E622 num_codevector_groups"]),
    "hubert": ({}, ["E622 num_conv_pos_embeddings", "E622 feat_extract_norm"]),
}
"""What is changed of the default config, and each reason with the field that stands in the way."""
NOTED = {"recurrent_gemma": "E614", "qwen2_vl_text": "E621", "qwen2_5_vl_text": "E621", "qwen3_vl_text": "E621"}
"""Families that import, and are told of something."""
LIKE = [name for name in CASES if gaps().families[name].like is not None]
ALONE = [name for name in CASES if gaps().families[name].like is None]


def config_of(family: str) -> dict[str, Any]:
    return AutoConfig.for_model(family).to_dict() | CASES.get(family, ({}, []))[0]


def source_of(config: dict[str, Any]) -> Source:
    return Source("config.json", json.dumps(config, indent=1))


def findings(config: dict[str, Any], **how: Any) -> list[Diagnostic]:
    made = import_config(source_of(config), **how)
    assert not isinstance(made, Imported), made.text
    return made


def spec_of(config: dict[str, Any], **how: Any) -> tuple[str, Spec]:
    """The text, and the spec that it is."""
    made = import_config(source_of(config), **how)
    assert isinstance(made, Imported), made
    found = load(Source("spec.yaml", made.text))
    assert isinstance(found, Spec), found
    return made.text, found


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value or 0, result.output


def test_every_family_with_a_gap_has_a_case() -> None:
    assert {*CASES, *NOTED} == set(gaps().families)
    for family in gaps().families.values():
        assert {gap.code for gap in family.gaps} <= set(gaps().reasons)
        assert family.like is None or family.like.family in families()
    assert set(gaps().reasons) == {f"E{n}" for n in range(611, 623)}


@pytest.mark.parametrize("family", CASES)
def test_every_reason_is_told_at_its_field_and_nothing_is_written(family: str, tmp_path: Path) -> None:
    config = config_of(family)
    source = source_of(config)
    found = findings(config)
    root = parse(source).root
    assert root is not None
    wanted = [(text.split()[0], span_of(root, split(text.split()[1]))) for text in CASES[family][1]]
    assert [(item.code, item.span) for item in found] == wanted
    for item, (_, field) in zip(found, map(str.split, CASES[family][1]), strict=True):
        name = field.split(".")[-1]
        assert name == "model_type" or name in item.message
        assert "which specc cannot say" in item.message and item.help
    place = tmp_path / "config.json"
    place.write_text(source.text)
    code, out = run("import", str(place), "-o", str(tmp_path / "spec.yaml"))
    assert code == 1 and all(f"error[{item.code}]" in out for item in found)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]


def test_a_reason_has_its_value_what_is_in_the_way_and_what_can_be_done() -> None:
    first = findings(config_of("gemma3n_text"))[0]
    assert first.message == "gemma3n_text keeps 4 copies of the stream (altup_num_inputs = 4), which specc cannot say"
    assert first.help == (
        "nothing in the language stands for several residual streams, and a component of your own cannot change the"
        " stream; --partial makes a spec of the rest, read as gemma3_text"
    )


def _gaps() -> list[Any]:
    every = [(name, gap) for name, family in gaps().families.items() for gap in family.gaps if gap.field]
    return [pytest.param(name, gap, id=f"{name}-{gap.field}") for name, gap in every]


@pytest.mark.parametrize(("family", "gap"), _gaps())
def test_a_gap_asks_where_its_field_does(family: str, gap: Gap) -> None:
    """By a value, by what the class takes where the config says nothing, and never for a value that is fine."""
    assert gap.field is not None

    def asks(config: dict[str, Any]) -> bool:
        return gap in asking(gaps(), Fields(config), family)

    inner = AutoConfig.for_model(family).to_dict()
    value = inner.get(gap.field)
    assert asks({gap.field: value}) == asks({gap.field: None}) == asks({})
    assert gap.default == value or not asks({}) or (value is not None and isinstance(gap.default, (list, dict)))
    for fine in gap.but:
        assert not asks({gap.field: fine}) and not asks({gap.field: [fine, fine]})
        assert asks({gap.field: [fine, "other"]}) and asks({gap.field: "other"})
    for one in gap.only or ():
        assert asks({gap.field: ["other", one]}) and not asks({gap.field: ["other"]})


@pytest.mark.parametrize("family", LIKE)
def test_a_partial_spec_is_sound_and_has_each_gap_as_a_comment(family: str, tmp_path: Path) -> None:
    config = config_of(family)
    text, spec = spec_of(config, partial=True)
    head = [line for line in text.splitlines() if line.startswith("# ")]
    like = gaps().families[family].like
    assert like is not None and head[0] == f"# {family}, read as {like.family}, without what specc cannot say:"
    for item in findings(config):
        said = item.message.removeprefix(f"{family} ").removesuffix(", which specc cannot say")
        assert f"# {item.code}: {said}" in head
    assert set(like.rest) <= {line.removeprefix("# ") for line in head}
    assert spec.model.name == family.replace("_", "-") and text.splitlines()[len(head)] == "specc: 1"
    left = sorted(line for line in head if line.startswith("# E602"))
    assert left == (
        ["# E602: the mapping of gemma3_text does not name the field num_kv_shared_layers = 15"]
        if family == "gemma3n_text"
        else []
    )


@pytest.mark.parametrize("family", ["zamba2", "longt5"])
def test_check_accepts_a_partial_spec(family: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config_of(family)))
    spec = str(tmp_path / "spec.yaml")
    assert run("import", str(tmp_path), "--partial", "-o", spec)[0] == 0
    assert run("check", spec)[0] == 0


@pytest.mark.parametrize("family", ALONE)
def test_without_a_mapping_that_is_near_a_partial_spec_is_refused(family: str) -> None:
    found = findings(config_of(family), partial=True)
    assert found == findings(config_of(family))
    ways = ("--part ", "no mapping is near enough for --partial")
    assert all(item.help and any(way in item.help for way in ways) for item in found)


def test_what_a_partial_spec_goes_without_of_a_known_family_is_told_too() -> None:
    config = AutoConfig.for_model("llama").to_dict() | {
        "hidden_act": "mish",
        "pretraining_tp": 2,
        "more": "one\nmax_seq: 3 # \u2028",
    }
    text, spec = spec_of(config, partial=True)
    assert [line.split(":")[0] for line in text.splitlines() if line.startswith("#")] == [
        "# llama, without what specc cannot say",
        "# E604",
        "# E601",
        "# E602",
    ]
    assert spec.model.max_seq == 2048 and "one?max_seq: 3 # ?" in text
    whole, _ = spec_of(AutoConfig.for_model("llama").to_dict(), partial=True)
    assert not whole.startswith("#")
    assert [item.code for item in findings(config | {"num_key_value_heads": 3}, partial=True)] == ["E606"]


@pytest.mark.parametrize("family", NOTED)
def test_what_imports_with_a_difference_has_a_note(family: str) -> None:
    text, _ = spec_of(config_of(family))
    assert text.startswith(f"# note: {NOTED[family]}: ") and text.splitlines()[1] == "specc: 1"


@pytest.mark.parametrize(
    ("family", "changes", "like"),
    [
        ("gemma4_text", {PER_LAYER: 0}, None),
        ("deberta", {"relative_attention": False}, None),
        ("big_bird", {"attention_type": "original_full"}, "--partial reads it as bert"),
    ],
)
def test_without_its_gap_a_family_is_one_that_is_not_known(family: str, changes: dict[str, Any], like: str) -> None:
    assert family not in families()  # one that is known by now stands here no longer
    (found,) = findings(config_of(family) | changes)
    assert found.code == "E610" and found.help
    assert (like or "fields are those of") in found.help


def test_an_unknown_family_is_told_with_those_that_are_near_and_the_fields_that_are_not_theirs() -> None:
    config = AutoConfig.for_model("qwen3").to_dict() | {"model_type": "qwen33", "planes": 3, "wings": 2}
    (found,) = findings(config)
    assert found.code == "E610" and found.help
    assert "nearest by name: qwen3" in found.help
    assert "of its 21 fields are those of qwen3, not planes, wings; then come" in found.help
    (found,) = findings({"model_type": "new", "text_config": {"model_type": "llama"}})
    assert found.help and found.help.startswith("--part text imports one of its models")


@pytest.mark.parametrize("family", ["llava", "qwen2_vl", "qwen3_vl", "gemma3"])
def test_one_tower_of_several_is_imported(family: str, tmp_path: Path) -> None:
    config = config_of(family)
    inner: dict[str, Any] = config["text_config"]
    if family.startswith("qwen"):
        inner["rope_parameters"]["mrope_section"] = [16, 24, 24]
    assert spec_of(config, part="text")[0] == spec_of(inner)[0]
    inner["hidden_act" if "hidden_act" in inner else "hidden_activation"] = "mish"
    (found,) = findings(config, part="text")
    assert found.code == "E604" and found.span is not None
    assert found.span.source.text[found.span.start : found.span.end] == '"mish"'
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, out = run("import", str(tmp_path), "--part", "text", "-o", str(tmp_path / "spec.yaml"))
    assert code == 1 and "E604" in out and not (tmp_path / "spec.yaml").exists()


def test_a_part_that_there_is_not_and_one_that_is_not_known() -> None:
    (found,) = findings(config_of("clip"), part="sound")
    assert found.code == "E607" and found.help == "it has text, vision"
    (found,) = findings(AutoConfig.for_model("llama").to_dict(), part="text")
    assert found.code == "E607" and found.help == "it is of one model"
    (found,) = findings(config_of("clip"), part="text")
    assert found.code == "E610" and "clip_text_model" in found.message
    found = findings(config_of("gemma3n"), part="text")
    assert [item.code for item in found] == ["E611", "E611", "E612", "E616"]
    assert spec_of(config_of("gemma3n"), part="text", partial=True)[1].model.name == "gemma3n-text"


@pytest.mark.parametrize("family", ["zamba2", "gemma3n_text", "clip", "rwkv"])
def test_weights_are_refused_with_the_same_words_before_they_are_read(family: str, tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(spec_of(AutoConfig.for_model("llama").to_dict())[0])
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config_of(family)))
    (folder / "model.safetensors").write_bytes(b"nothing that can be read")
    code, out = run("weights", "to-specc", str(tmp_path / "spec.yaml"), str(folder), "-o", str(tmp_path / "ours"))
    assert code == 1 and "E642" not in out and not (tmp_path / "ours").exists()
    assert all(f"error[{item.code}]: {item.message}" in out for item in findings(config_of(family)))
