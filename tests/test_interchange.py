"""Configs to specs and back: what is told, where, and that nothing is half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from specc.cli import cli
from specc.emit import emit
from specc.interop.exporting import Exported, export
from specc.interop.importing import Imported, import_config
from specc.interop.library import families, known, mapping
from specc.source import Diagnostic, Source
from specc.spec import Spec, load
from tests import zoo

SCALED = "head_dim: 256, scale: 0.0625"
LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 96,
}


def findings(text: str) -> list[Diagnostic]:
    found = import_config(Source("config.json", text))
    assert not isinstance(found, Imported), found.text
    return found


def told(**changes: Any) -> list[str]:
    """`E602 head_size` and so on: the code, and the text that the finding points at."""
    config = {key: value for key, value in (LLAMA | changes).items() if value != "absent"}
    text = json.dumps(config, indent=1)
    return [f"{f.code} {f.span.source.text[f.span.start : f.span.end] if f.span else ''}" for f in findings(text)]


@pytest.mark.parametrize("rope", [{"rope_type": "yarn"}, {"rope_type": "dynamic"}])
def test_an_original_length_that_nobody_gives_is_that_of_the_model(rope: dict[str, Any]) -> None:
    config = LLAMA | {"max_position_embeddings": 512, "rope_scaling": {**rope, "factor": 4.0}}
    found = import_config(Source("config.json", json.dumps(config)))
    assert isinstance(found, Imported)
    assert "original_seq: 512 " in found.text


def test_a_spec_is_short_and_each_line_says_where_it_is_from() -> None:
    found = import_config(Source("config.json", json.dumps(LLAMA | {"rope_theta": 500000.0})), "small")
    assert isinstance(found, Imported)
    assert (
        found.text
        == """\
specc: 1
name: small
d_model: 64  # hidden_size
vocab: 96  # vocab_size
norm:
  eps: 1e-06  # rms_norm_eps
decoder:
  layers: 4  # num_hidden_layers
  block:
    - attention:
        heads: 4  # num_attention_heads
        kv_heads: 2  # num_key_value_heads
        rope:
          theta: 500000.0  # rope_parameters.rope_theta
    - ffn:
        kind: gated  # all of llama
        hidden: 160  # intermediate_size
"""
    )


def test_older_names_are_read() -> None:
    scaling = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    new = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **scaling}}
    old = {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **scaling}}
    texts = [import_config(Source("config.json", json.dumps(LLAMA | fields))) for fields in (new, old)]
    assert all(isinstance(text, Imported) for text in texts)
    assert len({text.text for text in texts if isinstance(text, Imported)}) == 1


@pytest.mark.parametrize(
    ("changes", "codes"),
    [
        ({"pretraining_tp": 2}, ["E601 2"]),
        ({"head_size": 8, "no": None}, ["E602 8"]),
        ({"rope_theta": 5.0, "rope_parameters": {"rope_theta": 6.0}}, ["E603 5.0"]),
        ({"hidden_act": "mish"}, ['E604 "mish"']),
        ({"rope_parameters": {"rope_type": "dynamo"}}, ['E604 "dynamo"']),
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "beta": 1}}, ["E602 1"]),
        ({"num_attention_heads": 7, "head_dim": 10, "num_key_value_heads": 2}, ["E606 2"]),
        ({"hidden_size": "64"}, ['E604 "64"']),
        ({"hidden_size": "64", "head_dim": 8}, ['E606 "64"']),
        ({"quantization_config": {"bits": 4}, "hidden_act": "mish"}, ["E602 4", 'E604 "mish"']),
        ({"model_type": "lama"}, ['E610 "lama"']),
        ({"model_type": "absent"}, ["E610 {"]),
        ({"model_type": "rwkv"}, ['E617 "rwkv"']),
    ],
)
def test_what_is_wrong_is_told_at_its_place(changes: dict[str, Any], codes: list[str]) -> None:
    assert told(**changes) == codes


def test_a_name_that_is_nearly_a_family_is_suggested() -> None:
    (found,) = findings(json.dumps(LLAMA | {"model_type": "lama"}))
    assert found.help and "llama" in found.help.split(";")[0] and "6 of its 6 fields" in found.help


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a": 1', "nothing", "[" * 100_000])
def test_what_is_no_config_is_told(text: str) -> None:
    assert [found.code for found in findings(text)] == ["E600"]


def test_a_field_given_twice_is_a_contradiction() -> None:
    text = json.dumps(LLAMA)[:-1] + ', "hidden_size": 65}'
    assert [found.code for found in findings(text)] == ["E603"]


def run(*words: str) -> tuple[int, str]:
    result = CliRunner().invoke(cli, words, standalone_mode=False)
    assert result.exception is None, result.exception
    return result.return_value or 0, result.output


def test_commands_write_all_or_nothing(tmp_path: Path) -> None:
    config, spec, back = (tmp_path / name for name in ("config.json", "spec.yaml", "back.json"))
    config.write_text(json.dumps(LLAMA | {"head_size": 8}))
    code, out = run("import", str(config), "-o", str(spec))
    assert code == 1 and "E602" in out and not spec.exists()
    config.write_text(json.dumps(LLAMA))
    assert run("import", str(tmp_path), "-o", str(spec))[0] == 0
    assert run("export", str(spec), "--family", "llama", "-o", str(back))[0] == 0
    made = json.loads(back.read_text())
    assert made["architectures"] == ["LlamaForCausalLM"] and LLAMA.items() <= made.items()
    assert run("import", str(tmp_path / "nothing.json"), "-o", str(spec))[0] == 2
    spec.write_text(spec.read_text().replace("kind: gated", "kind: plain"))
    code, out = run("export", str(spec), "--family", "llama", "-o", str(tmp_path / "other.json"))
    assert code == 1 and "E651" in out and "ffn.kind" in out and not (tmp_path / "other.json").exists()


def test_committed_specs_are_written_as_the_configs_they_were_made_of() -> None:
    made = export(zoo.spec("llama-3.1-8b"), "llama")
    assert isinstance(made, Exported)
    assert made.config["rope_parameters"]["rope_type"] == "llama3" and made.config["intermediate_size"] == 14336
    assert isinstance(export(zoo.spec("gpt2"), "gpt2"), Exported)


@pytest.mark.parametrize(("name", "family"), [("gemma3-text", "gemma3_text"), ("gemma2-2b", "gemma2")])
def test_the_usual_scale_of_scores_need_not_be_stated(name: str, family: str) -> None:
    """Its field is always there; a spec that states it is the same model, and makes the same file but for its name."""
    text = (zoo.ROOT / "specs" / "zoo" / f"{name}.yaml").read_text().replace(", softcap: 50", "")
    text = text.replace("head: {softcap: 30}\n", "")
    specs = [load(Source("s.yaml", text.replace("head_dim: 256", stated))) for stated in ("head_dim: 256", SCALED)]
    sources: list[str] = []
    for spec in specs:
        assert isinstance(spec, Spec), spec
        made = export(spec, family)
        assert isinstance(made, Exported) and made.config["query_pre_attn_scalar"] == 256, made
        sources.append(emit(spec, spec.layout()).source)
    assert sources[0] == sources[1] and "scale=" not in sources[0]
    other = load(Source("s.yaml", text.replace("head_dim: 256", SCALED.replace("0.0625", "0.125"))))
    assert isinstance(other, Spec) and "scale=0.125" in emit(other, other.layout()).source


def test_arithmetic_where_a_config_has_a_number_is_told() -> None:
    text = (zoo.ROOT / "specs" / "zoo" / "gemma3-text.yaml").read_text()
    spec = load(Source("s.yaml", text.replace("head_dim: 256", "head_dim: 256, scale: 256 ** -0.5")))
    assert isinstance(spec, Spec)
    found = export(spec, "gemma3_text")
    assert isinstance(found, list) and "arithmetic is no number here: state its value" in found[0].message


def test_all_groups_of_a_router_are_one() -> None:
    """What keeps all of its groups limits nothing: no groups in the spec, one in the config."""
    config = known("deepseek_v3").defaults | {"model_type": "deepseek_v3", "n_group": 4, "topk_group": 4}
    config = {key: value for key, value in config.items() if not (isinstance(value, str) and "$" in value)}
    made = import_config(Source("config.json", json.dumps(config)))
    assert isinstance(made, Imported) and "groups" not in made.text
    spec = load(Source("s.yaml", made.text))
    assert isinstance(spec, Spec)
    back = export(spec, "deepseek_v3")
    assert isinstance(back, Exported) and (back.config["n_group"], back.config["topk_group"]) == (1, 1)
    text = json.dumps(config | {"n_group": 1, "topk_group": 2})
    assert [item.code for item in findings(text)] == ["E601"]


def test_what_no_family_can_say_is_told() -> None:
    found = export(zoo.spec("transformer-base"))
    assert isinstance(found, list) and found[0].code == "E651"
    found = export(zoo.spec("gpt2"), "nothing")
    assert isinstance(found, list) and [item.code for item in found] == ["E650"]
    changed = load(Source("spec.yaml", (zoo.ROOT / "specs" / "gpt2.yaml").read_text().replace("plain", "gated")))
    assert isinstance(changed, Spec)


def test_importing_and_exporting_read_no_torch(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(LLAMA))
    script = """
import sys
from specc.cli import main
for words in ("import . -o spec.yaml", "export spec.yaml --family llama"):
    try:
        main(words.split())
    except SystemExit as stop:
        assert not stop.code, words
print([name for name in ("torch", "numpy", "safetensors", "transformers") if name in sys.modules])
"""
    environment = {**os.environ, "PYTHONPATH": str(zoo.ROOT)}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.stdout.splitlines()[-1] == "[]", result.stderr


@pytest.mark.parametrize(
    ("old", "new", "place"),
    [
        ("hidden: $intermediate_size", "hidden: $a + $b", "$a + $b"),
        ("hidden: $intermediate_size", "hidden: $a | nothing", "$a | nothing"),
        ("{gate,up,down}_proj.*", "{gate,up}_proj.*", "model.layers.{i}.mlp.{gate,up}_proj.*"),
        ("family: llama", "family: 7", "7"),
        ("family: llama", "family: llama\nfamilies: 7", "7"),
    ],
)
def test_a_mapping_that_is_wrong_is_told_at_its_place(old: str, new: str, place: str, tmp_path: Path) -> None:
    text = (zoo.ROOT / "specc" / "interop" / "maps" / "llama.yaml").read_text()
    assert old in text
    (tmp_path / "own.yaml").write_text(text.replace(old, new, 1))
    found = mapping(tmp_path / "own.yaml")
    assert isinstance(found, list) and [item.code for item in found] == ["E630"], found
    assert found[0].span and found[0].span.source.text[found[0].span.start : found[0].span.end] == place


def test_a_mapping_of_ones_own_is_used(tmp_path: Path) -> None:
    text = (zoo.ROOT / "specc" / "interop" / "maps" / "llama.yaml").read_text()
    (tmp_path / "own.yaml").write_text(text.replace("family: llama", "family: mine").replace("vocab_size", "words"))
    fields = {key.replace("vocab_size", "words"): value for key, value in LLAMA.items()} | {"model_type": "mine"}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    code, out = run("import", str(tmp_path), "--map", str(tmp_path / "own.yaml"))
    assert code == 0 and "vocab: 96  # words" in out


def test_all_mappings_are_sound() -> None:
    assert families() and all(known(family).family == family for family in families())
