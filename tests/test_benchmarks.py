"""The benchmarks of a step measure the same models: losses are compared before anything is timed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from torch import Tensor

from benchmarks import models, step

PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
SMALL = step.Sizes(layers=2, d_model=32, heads=4, kv_heads=2, hidden=48, vocab=96, batch=2, seq=16)
LLAMA = next(model for model in step.MODELS if model.name == "Llama")
GPT2 = next(model for model in step.MODELS if model.name == "GPT-2")


@pytest.mark.parametrize(
    "model",
    [replace(LLAMA, sizes=SMALL), replace(GPT2, sizes=replace(SMALL, kv_heads=4))],
    ids=lambda model: model.name,
)
def test_others_are_measured_beside_ours(model: step.Model, capsys: pytest.CaptureFixture[str]) -> None:
    step.measure(model, enough=0.0)
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line]
    assert names[names.index("step") + 1] == "specc"
    assert "transformers" in names


def test_a_model_that_is_another_is_refused() -> None:
    """Gate and up have the same shape: only the losses tell."""
    (other,) = [other for other in LLAMA.others if other.name == "transformers"]

    def swapped(ours: dict[str, Tensor], sizes: step.Sizes) -> dict[str, Tensor]:
        found = other.weights(ours, sizes)
        names = {name: name.replace("gate", "up") if "gate" in name else name.replace("up", "gate") for name in found}
        return {name: found[names[name]] for name in found}

    broken = replace(LLAMA, sizes=SMALL, others=(replace(other, weights=swapped),))
    with pytest.raises(SystemExit, match="not the same model"):
        step.measure(broken, enough=0.0)


def test_the_page_shows_the_models_that_are_measured() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    for model in step.MODELS:
        row = lines.index(step.title(model)) + 3
        shown = [line.split()[0] for line in lines[row : row + 1 + len(model.others)]]
        assert shown == ["specc", *(other.name for other in model.others)]


def test_a_family_is_measured_beside_its_class() -> None:
    family = models.FAMILIES[0]
    small = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "head_dim": 8,
    }
    row = models.measure(replace(family, sizes={**small, "num_key_value_heads": 2, "vocab_size": 96}), enough=0.0)
    assert row.split()[0] == family.name


def test_the_page_shows_the_families_that_are_measured() -> None:
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    row = next(n for n, line in enumerate(lines) if line.startswith("family ")) + 1
    shown = [line.split()[0] for line in lines[row : row + len(models.FAMILIES)]]
    assert shown == [family.name for family in models.FAMILIES]
