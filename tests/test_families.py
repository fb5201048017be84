"""Every mapping: the config that its class has by default, the same model, the same fields and weights back."""

from __future__ import annotations

import json
from pathlib import Path as File
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig

from specc.interop.exporting import Exported, exported
from specc.interop.fields import Fields, Path, split
from specc.interop.filling import holes
from specc.interop.functions import FUNCTIONS
from specc.interop.importing import Imported, import_config, imported, normal
from specc.interop.layers import LAYERS
from specc.interop.library import common, families, known
from specc.interop.ropes import ROPES
from specc.interop.schema import Mapping, Weight
from specc.interop.shorten import meaning
from specc.source import Source
from specc.spec import Model, Spec, load
from tests.families import ROWS, Row
from tests.family_parity import built, compare, left_out, plan_of, spec_of, trained

QUICK = {row.family for row in ROWS if row.quick}
ALL = [pytest.param(row, id=str(row), marks=[] if row.quick else pytest.mark.zoo) for row in ROWS]
EACH = [pytest.param(family, marks=[] if family in QUICK else pytest.mark.zoo) for family in families()]


def test_every_mapping_has_a_row() -> None:
    assert {row.family for row in ROWS} == set(families())


def test_no_function_of_holes_has_the_name_of_another() -> None:
    assert all(FUNCTIONS[name] is one for part in (LAYERS, ROPES) for name, one in part.items())


@pytest.mark.parametrize("row", ALL)
def test_logits_gradients_and_the_way_back(row: Row, tmp_path: File) -> None:
    assert compare(row, tmp_path) <= 1e-9


def paths_of(mapping: Mapping) -> set[Path]:
    """Fields in holes, of variants too."""
    specs = (mapping.spec, *(variant.spec for variant in mapping.variants))
    return {path for spec in specs for _, item in holes(spec) for path in (*item.fields, *item.given)}


def fields_of(mapping: Mapping) -> dict[str, set[str]]:
    """Top-level fields in holes, required and ignored; a hole of a variant alone may be ignored elsewhere."""
    used = {path[0] for _, item in holes(mapping.spec) for path in (*item.fields, *item.given)}
    specs = (variant.spec for variant in mapping.variants)
    more = {path[0] for spec in specs for _, item in holes(spec) for path in (*item.fields, *item.given)}
    used |= more - set(mapping.ignore)
    when = {split(name)[0] for variant in mapping.variants for name in variant.when}
    return {"holes": used | when, "require": set(mapping.require) - when, "ignore": set(mapping.ignore)}


@pytest.mark.parametrize("family", EACH)
def test_every_field_of_the_config_is_said_once(family: str) -> None:
    parts = fields_of(known(family))
    names = [name for part in parts.values() for name in part]
    assert len(names) == len(set(names)), sorted(name for name in names if names.count(name) > 1)
    default = AutoConfig.for_model(family).to_dict()
    older = {split(name)[0] for name in known(family).older}
    assert {name for name in default if name not in common().ignore} <= set(names) | older
    stated = {split(name)[0] for name in known(family).defaults}
    assert {name for name in parts["holes"] if name not in default} <= stated <= parts["holes"] | parts["ignore"]


@pytest.mark.parametrize("family", EACH)
def test_defaults_are_those_of_the_class(family: str) -> None:
    mapping = known(family)
    needed = {name: NEEDS.get(family, {})[name] for name in NEEDS.get(family, {}) if name in NEEDED}
    default = json.loads(json.dumps(AutoConfig.for_model(family, **needed).to_dict()))
    filled = normal(Fields({}), mapping, [])
    for path, value in Fields(mapping.defaults).leaves():
        name, wanted = ".".join(path), Fields(default).get(path)
        if path[0] in needed or ("$" in str(value) and wanted is None):
            continue  # the class works it out where it is used
        assert path[0] not in default or filled.get(path) == wanted, f"{name}: {filled.get(path)}, not {wanted}"
    short = imported(Fields({"model_type": family, **needed}), mapping)
    whole = imported(Fields(default), mapping)
    assert isinstance(short, Imported) and isinstance(whole, Imported), (short, whole)
    assert short.text == whole.text


NEEDED = ("layer_types", "head_dim", "num_experts_per_tok", "n_routed_experts", "n_shared_experts")
"""Of these fields, for which no mapping has a default."""
NEEDS = {
    "dbrx": {"attn_config": {"rope_theta": 10000.0}},
    "deepseek_v2": {"num_experts_per_tok": 6},
    "dots1": {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2},
    "nemotron": {"num_key_value_heads": 48},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"] * 16},
    **{family: {"head_dim": 128} for family in ("glm4_moe", "ministral", "hunyuan_v1_dense", "hunyuan_v1_moe")},
}
"""Without which the class cannot be built."""


@pytest.mark.parametrize("family", EACH)
def test_the_default_config_has_the_tensors_of_its_class(family: str) -> None:
    config = AutoConfig.for_model(family, **NEEDS.get(family, {}))
    made, model = spec_of(config)
    plan = plan_of(made, model)
    with torch.device("meta"):
        theirs = built(config)
    shapes = {name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()}
    ours = {tensor.name: tensor.shape for tensor in plan.tensors}
    copies = {copy for tensor in plan.tensors for copy in tensor.copies}
    assert ours == {name: shape for name, shape in shapes.items() if name in ours}
    assert {name for name in shapes if name not in ours and not left_out(plan, name)} <= copies
    known = trained(theirs)
    copied = {tensor.name for tensor in plan.tensors if set(tensor.copies) & known.keys()}  # by another name
    known |= {
        name: tensor
        for name, tensor in theirs.state_dict().items()
        if name in ours and name not in known and name not in copied
    }
    known = {name: tensor for name, tensor in known.items() if not left_out(plan, name)}
    count = sum(tensor.numel() for tensor in known.values())
    assert sum(torch.Size(shape).numel() for shape in plan.shapes.values()) == count


def changed(value: Any, draw: Any) -> Any:
    """Another value of a field, of its own type."""
    if isinstance(value, bool):
        return draw(st.booleans())
    if isinstance(value, int):
        return draw(st.sampled_from([value, 2 * value, max(1, value // 2), value + 2]))
    if isinstance(value, float):
        return draw(st.sampled_from([value, value + 0.125, value * 3]))
    return draw(st.sampled_from(["gelu", "relu", "silu", "gelu_new"])) if isinstance(value, str) else value


USUAL = {"beta_fast": 32.0, "beta_slow": 1.0, "truncate": True}
"""What classes take for fields of a rope of yarn that are not there."""


def alike(a: Any, b: Any) -> bool:
    """Equal but for fields without a value or with the usual one, or two names of one activation."""
    if isinstance(a, dict) and isinstance(b, dict):
        usual = USUAL if a.get("rope_type") == b.get("rope_type") == "yarn" else {}
        a, b = (
            {key: value for key, value in given.items() if value is not None and value != usual.get(key)}
            for given in (a, b)
        )
    return a == b or any({a, b} <= set(names) for names in common().activations.values() if isinstance(a, str))


def matters(config: dict[str, Any], path: Path, value: Any, mapping: Mapping, model: Model) -> bool:
    """Whether a config with another value of a field makes another model: a window does not where no layer has one."""
    other = Fields(json.loads(json.dumps(config)))
    other.pop(path)
    if value is not None:
        other.put(path, value)
    made = imported(other, mapping)
    read = load(Source("spec.yaml", made.text)) if isinstance(made, Imported) else None
    return not isinstance(read, Spec) or meaning(read.model) != meaning(model)


@pytest.mark.parametrize("row", ALL)
@settings(max_examples=3)
@given(data=st.data())
def test_what_is_written_is_read_back(row: Row, data: Any) -> None:
    """A config of any values is refused, or goes to a spec and comes back; and so does the spec."""
    mapping = known(row.family)
    config = json.loads(json.dumps(row.config().to_dict()))
    names = sorted(name for name in fields_of(mapping)["holes"] if name in config)
    for name in data.draw(st.lists(st.sampled_from(names), max_size=3, unique=True)):
        config[name] = changed(config[name], data.draw)
    made = import_config(Source("config.json", json.dumps(config)))
    if not isinstance(made, Imported):
        assert made and all(item.code.startswith("E6") for item in made)
        return
    spec = load(Source("spec.yaml", made.text))
    assert isinstance(spec, Spec), spec
    back = exported(spec, mapping)
    assert isinstance(back, Exported), back
    wanted = normal(Fields(config), mapping, []).values
    chosen = {split(name)[0] for variant in mapping.variants for name in variant.when}  # several values may choose one
    chosen |= set(made.mapping.ignore)
    chosen |= set(row.renamed)
    for path in paths_of(mapping) if back.mapping == made.mapping else ():
        if path[0] in fields_of(mapping)["holes"] - chosen:
            was, now = Fields(wanted).get(path), Fields(json.loads(json.dumps(back.config))).get(path)
            assert alike(now, was) or not matters(config, path, now, mapping, spec.model), path
    again = imported(Fields(back.config), mapping)
    assert isinstance(again, Imported)
    read = load(Source("spec.yaml", again.text))
    assert isinstance(read, Spec) and meaning(read.model) == meaning(spec.model)


BREAKS = {
    "gate and up": ("llama", "layers.{i}.ffn.{gate,up,down}.*", "model.layers.{i}.mlp.{up,gate,down}_proj.*"),
    "norms": ("gpt2", "layers.{i}.{attention,ffn}_norm.*", "transformer.h.{i}.{ln_2,ln_1}.*"),
    "order in a fused tensor": ("gpt2", "layers.{i}.attention.{q,k,v}.*", "d_model ([k q v])"),
}


@pytest.mark.parametrize("name", BREAKS)
def test_a_wrong_line_is_found(name: str, tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    family, left, right = BREAKS[name]
    row = next(row for row in ROWS if row.family == family)
    mapping = known(family)
    old = mapping.weights[left]
    place = Weight(hf=old.hf, axes=right) if isinstance(old, Weight) else right
    broken = mapping.model_copy(update={"weights": {**mapping.weights, left: place}})
    monkeypatch.setattr("specc.interop.choosing.known", lambda family: broken)
    with pytest.raises(AssertionError, match="difference"):
        compare(row, tmp_path)
