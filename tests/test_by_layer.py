"""Numbers that differ from layer to layer stand in tables, not in a branch a layer."""

from __future__ import annotations

import re

import pytest

from specc.emit import emit
from specc.emit.by_layer import tabled
from specc.source import Source
from specc.spec import Spec, load
from specc.verify import verify_layout

HEAD = "specc: 1\nname: by-layer\nd_model: 32\nvocab: 97\n"
BLOCKS = """blocks:
  a: [{attention: {heads: 4, rope: {}, scale: 0.5}}, {ffn: {hidden: 64}}]
  b: {like: a, with: {attention: {scale: 0.25}}}
  c: {like: a, with: {attention: {scale: 0.125}, ffn: {hidden: 96}}}
"""
CYCLE = f"{HEAD}{BLOCKS}decoder: {{layers: 16, pattern: [a, b, c, b]}}\n"
EACH = HEAD + "decoder: {layers: 6, block: [{attention: {heads: 4, scale: 1 / (layer + 1)}}, {ffn: {hidden: 64}}]}\n"


def spec_of(text: str, layout: str) -> Spec:
    spec = load(Source("s.yaml", f"{text}layout: {layout}\n"))
    assert isinstance(spec, Spec), spec
    return spec


def tables(text: str, layout: str) -> list[str]:
    spec = spec_of(text, layout)
    source = emit(spec, spec.layout()).source
    assert "elif i" not in source and len(re.findall(r"\bby_layer2?\[", source)) >= 1
    return [line.strip() for line in source.splitlines() if line.strip().startswith("by_layer")]


def test_a_table_has_the_number_of_every_layer_under_its_own() -> None:
    assert tables(EACH, "{}") == ["by_layer = (1.0, 0.5, 0.3333333333333333, 0.25, 0.2, 0.16666666666666666)"]
    first, last = tables(EACH, "{pp: 2}")
    assert first == "by_layer = (1.0, 0.5, 0.3333333333333333)"
    assert last == "by_layer = {3: 0.25, 4: 0.2, 5: 0.16666666666666666}"


def test_layers_of_a_cycle_look_their_numbers_up_by_their_place_in_it() -> None:
    assert tables(CYCLE, "{}") == ["by_layer = (0.5, 0.25, 0.125, 0.25)", "by_layer2 = (64, 64, 96, 64)"]
    source = emit(spec_of(CYCLE, "{}"), spec_of(CYCLE, "{}").layout()).source
    assert "Attention(by_layer[i % 4])" in source and "FeedForward(by_layer2[i % 4])" in source


def test_two_kinds_of_layer_are_a_choice_and_what_differs_in_words_is_another_expression() -> None:
    keys = {n: n for n in range(5)}
    two = {0: "Block(1)", 1: "Block(2)", 2: "Block(1)"}
    assert tabled(two, keys, "i") == ({}, two)
    made = {0: "A2(0.5, 'x1')", 1: "A2(0.25, 'x1')", 2: "B(0.5)", 3: "A2(1e-05, 'x1')", 4: "B(3)"}
    names, layers = tabled(made, keys, "i % 5", first=2)
    assert names == {"by_layer2": "{0: 0.5, 1: 0.25, 3: 1e-05}"}
    assert [layers[n] for n in keys] == ["A2(by_layer2[i % 5], 'x1')"] * 2 + ["B(0.5)", layers[0], "B(3)"]


def test_a_long_table_has_rows() -> None:
    layers = {n: f"Block({n / 7})" for n in range(40)}
    names, _ = tabled(layers, {n: n for n in layers}, "i")
    rows = names["by_layer"].splitlines()
    assert rows[0] == "(" and rows[-1] == ")  # fmt: skip" and max(map(len, rows)) < 100
    assert eval(names["by_layer"]) == tuple(n / 7 for n in layers)


@pytest.mark.parametrize(("text", "layout"), [(CYCLE, "{pp: 4}"), (EACH, "{pp: 2}")])
def test_every_layer_computes_with_its_own_numbers(text: str, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    spec = spec_of(text, layout)
    assert verify_layout(spec, spec.layout(), 4) == 0
    assert "DIFFERS" not in capsys.readouterr().out
