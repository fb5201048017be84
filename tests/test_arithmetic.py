"""Arithmetic of a spec is what Python computes, and nothing but arithmetic."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.source import Source
from specc.spec import Spec, load
from specc.spec.arithmetic import DEPTH, Fault, Number, evaluate
from tests.broken import DECODER, FFN
from tests.test_bad_input import findings

NAMES = {"d_model": 512, "layers": 3, "layer": 0}
NUMBERS = ("0", "1", "2.5", ".5", "1e-3", "3", "d_model", "layers", "layer")


def formulas() -> st.SearchStrategy[str]:
    def larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        binary = st.tuples(inner, st.sampled_from(("+", "-", "*", "/", "**", " + ", " ** ")), inner).map("".join)
        functions = st.tuples(st.sampled_from(("sqrt", "exp", "log", "floor", "ceil")), inner)
        pairs = st.tuples(st.sampled_from(("min", "max")), inner, inner)
        return st.one_of(
            binary,
            inner.map("({})".format),
            inner.map("-{}".format),
            functions.map(lambda parts: f"{parts[0]}({parts[1]})"),
            pairs.map(lambda parts: f"{parts[0]}({parts[1]}, {parts[2]})"),
        )

    return st.recursive(st.sampled_from(NUMBERS), larger, max_leaves=12)


def python(text: str) -> float | None:
    """What Python makes of it in float64; None where that is no finite real number, at any step."""
    functions = {name: getattr(math, name) for name in ("sqrt", "exp", "log", "floor", "ceil")}
    try:
        value: Any = eval(text, {"__builtins__": {}}, {**functions, "min": min, "max": max, **NAMES})
        return float(value) if not isinstance(value, complex) and math.isfinite(value) else None
    except (ArithmeticError, ValueError, TypeError):
        return None


@given(formulas())
def test_a_value_is_that_of_python(text: str) -> None:
    found, expected = evaluate(text, NAMES), python(text)
    if isinstance(found, Number) and expected is not None:
        assert math.isclose(found.value, expected, rel_tol=1e-9, abs_tol=1e-300), text
    else:
        assert isinstance(found, Fault) == (expected is None) or "is infinite" in str(found), (text, found, expected)


WRONG = {
    "": ("", "form"),
    "1 2": ("2", "form"),
    "2 *": ("*", "form"),
    "(1": ("1", "form"),
    "1)": (")", "form"),
    "sqrt 2": ("sqrt", "name"),
    "sqrt()": (")", "form"),
    "sqrt(1, 2)": ("sqrt(1, 2)", "form"),
    "min(1)": ("min(1)", "form"),
    "__import__(1)": ("__import__", "function"),
    "d_model.real": (".", "form"),
    "d_model[0]": ("[", "form"),
    "'a'": ("'", "form"),
    "1 if 1 else 2": ("if", "form"),
    "\u0661": ("\u0661", "form"),
    "2 + 1 / layer": ("1 / layer", "value"),
    "(0 - 1) ** 0.5": ("(0 - 1) ** 0.5", "value"),
    "sqrt(-1) + 1": ("sqrt(-1)", "value"),
    "exp(1000)": ("exp(1000)", "value"),
    "9 ** 9 ** 9": ("9 ** 9 ** 9", "value"),
    "1e999": ("1e999", "value"),
    f"{'(' * (DEPTH + 1)}1{')' * (DEPTH + 1)}": ("1", "form"),
    f"{'-' * (DEPTH + 1)}1": ("1", "form"),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_found_where_it_stands(text: str) -> None:
    found = evaluate(text, NAMES)
    assert isinstance(found, Fault) and (text[found.start : found.end], found.kind) == WRONG[text], found


def test_as_deep_as_may_be() -> None:
    assert evaluate(f"{'(' * DEPTH}1{')' * DEPTH}", {}) == Number(1.0, frozenset())
    assert evaluate(f"{'-' * DEPTH}layers", NAMES) == Number(3.0, frozenset({"layers"}))


TOLD = {
    'embedding: {scale: "sqrt(d_modl)"}': ("E261 there is no d_modl here", "d_modl"),
    "embedding: {scale: layers}": ("E261 there is no layers here", "layers"),
    "embedding: {scale: sqt(2)}": ("E261 there is no function sqt", "sqt"),
    "embedding: {scale: d_model * 1000}": ("E204 scale must be at most 10,000, not 32000", "d_model * 1000"),
    "init: {std: 0 * d_model}": ("E204 std must be at least 1e-6, not 0", "0 * d_model"),
    "residual: {beta: 1 / (layer - 1)}": ("E262 1 / (layer - 1) is infinite in layer 1", "1 / (layer - 1)"),
    "residual: {beta: 9000 + 1000 * layer}": (
        "E204 beta must be at most 10,000, not 11000 in layer 2",
        "9000 + 1000 * layer",
    ),
    f"residual: {{beta: {'1 + ' * 60}1}}": ("E204 beta must have at most 200 characters, not 241", "1 + " * 60 + "1"),
    "residual: {beta: [1]}": ("E205 beta must be a number or a text, not a list", "[1]"),
}


@pytest.mark.parametrize("text", TOLD)
def test_findings_stand_at_their_characters(text: str) -> None:
    (item,) = findings(DECODER.replace("vocab", f"{text}\nvocab"))
    assert item.span is not None
    at = item.span.source.text[item.span.start : item.span.end]
    assert (f"{item.code} {item.message}", at) == TOLD[text]


def test_a_number_for_each_layer() -> None:
    found = load(Source("s.yaml", DECODER.replace(FFN, "- {ffn: {hidden: 64}, out_scale: 1 / (layer + 1)}")))
    assert isinstance(found, Spec)
    (run,) = found.model.stacks[0].runs
    assert [block.sublayers[1].branches[0].out_scale for block in run.blocks] == [1, 1 / 2, 1 / 3, 1 / 4]
    (item,) = findings(
        DECODER.replace(FFN, "- {ffn: {hidden: 64}, out_scale: layer}").replace("layers: 4", "layers: 257")
    )
    assert item.code == "E233"
