"""Numbers of a spec have ranges in which what is built of them is finite."""

from __future__ import annotations

from typing import get_type_hints

import pytest
import torch

from specc.emit import emit
from specc.source import Source
from specc.spec import Spec, load
from specc.spec.reference import SECTIONS, _values  # pyright: ignore[reportPrivateUsage]
from specc.verify import verify_layout
from specc.verify.run import load_file
from tests.test_bad_input import findings

TEXT = """\
specc: 1
name: small
d_model: 32
vocab: 96
EMBEDDING
decoder:
  layers: 2
  block: [ATTENTION, ffn: {hidden: 64}]
"""
GENERAL = "{norm: true, base: normed, KEYS, attention: {heads: 4}, REST}"
ROPE = "attention: {heads: 4, rope: {KEYS}}"
LLAMA3 = "scaling: {kind: llama3, KEYS}"
PLACES: dict[str, tuple[str, str, float, float]] = {
    "embedding.scale": ("EMBEDDING", "embedding: {scale: N}", -1e4, 1e4),
    "embedding.dropout": ("EMBEDDING", "embedding: {dropout: N}", 0, 0.99),
    "dropout": ("EMBEDDING", "dropout: N", 0, 0.99),
    "norm.eps": ("EMBEDDING", "norm: {eps: N}", 1e-15, 0.999),
    "norm.eps of layer": ("EMBEDDING", "norm: {kind: layer, eps: N}", 1e-15, 0.999),
    "norm.weight_offset": ("EMBEDDING", "norm: {weight_offset: N}", -1e4, 1e4),
    "norm.weight_offset of layer": ("EMBEDDING", "norm: {kind: layer, groups: 4, weight_offset: N}", -1e4, 1e4),
    "init.std": ("EMBEDDING", "init: {std: N}", 1e-6, 10),
    "init.parameters": ("EMBEDDING", "init: {parameters: {embedding: {std: N}}}", 1e-6, 10),
    "residual.alpha": ("EMBEDDING", "residual: {alpha: N}", -1e4, 1e4),
    "residual.beta": ("EMBEDDING", "residual: {beta: N}", -1e4, 1e4),
    "attention.scale": ("ATTENTION", "attention: {heads: 4, scale: N}", 1e-6, 1e4),
    "attention.dropout": ("ATTENTION", "attention: {heads: 4, dropout: N}", 0, 0.99),
    "alpha": ("ATTENTION", GENERAL.replace("KEYS", "alpha: N"), -1e4, 1e4),
    "beta": ("ATTENTION", GENERAL.replace("KEYS", "beta: N"), -1e4, 1e4),
    "in_scale": ("ATTENTION", GENERAL.replace("REST", "in_scale: N"), -1e4, 1e4),
    "out_scale": ("ATTENTION", GENERAL.replace("REST", "out_scale: N"), -1e4, 1e4),
    "layerscale": ("ATTENTION", GENERAL.replace("REST", "layerscale: N"), -1e4, 1e4),
    "branch.dropout": ("ATTENTION", GENERAL.replace("REST", "dropout: N"), 0, 0.99),
    "theta": ("ATTENTION", ROPE.replace("KEYS", "theta: N"), 1, 1e15),
    "linear factor": ("ATTENTION", ROPE.replace("KEYS", "scaling: {kind: linear, factor: N}"), 1e-3, 1e6),
    "llama3 factor": ("ATTENTION", ROPE.replace("KEYS", LLAMA3.replace("KEYS", "factor: N")), 1e-3, 1e6),
    "low_freq": ("ATTENTION", ROPE.replace("KEYS", LLAMA3.replace("KEYS", "factor: 8, low_freq: N")), 1e-3, 3.9),
    "high_freq": ("ATTENTION", ROPE.replace("KEYS", LLAMA3.replace("KEYS", "factor: 8, high_freq: N")), 1.001, 1e6),
    "ffn.dropout": ("ATTENTION", "ffn: {hidden: 64, dropout: N}", 0, 0.99),
}


def text(name: str, value: float) -> str:
    place, written, _, _ = PLACES[name]
    made = TEXT.replace(place, written.replace("N", f"{value!r}"))
    for other, plain in (
        ("KEYS", "alpha: 1"),
        (", REST", ""),
        ("ATTENTION", "attention: {heads: 4}"),
        ("EMBEDDING", ""),
    ):
        made = made.replace(other, plain)
    return made


@pytest.mark.parametrize("name", PLACES)
def test_the_ends_of_every_range_train(name: str) -> None:
    """A step in float32, dropout on: loss and every gradient are finite."""
    *_, low, high = PLACES[name]
    for value in (low, high, 0.0) if low <= 0 else (low, high):
        spec = load(Source("s.yaml", text(name, value)))
        assert isinstance(spec, Spec), spec
        files = emit(spec, spec.layout())
        file = load_file(files.source, files.name)
        module = file.build_model(torch.device("cpu"), 0)
        tokens = torch.randint(0, 96, (2, 16), generator=torch.Generator().manual_seed(0))
        loss = file.loss(module(tokens), tokens, 1 / tokens.numel())
        loss.backward()
        assert loss.isfinite(), (name, value)
        for key, p in module.named_parameters():
            assert p.grad is not None and p.grad.isfinite().all(), (name, value, key)


@pytest.mark.parametrize("name", PLACES)
def test_what_lies_outside_is_refused_at_its_place(name: str) -> None:
    *_, low, high = PLACES[name]
    low = {3.9: 1e-3}.get(high, low)
    outside = [low - 1e4 if low < 0 else -1.0 if low == 0 else low / 1.01, high * 1.1]
    for value in outside[: 1 if name == "low_freq" else 2]:
        (item,) = findings(text(name, value))
        assert item.span is not None and item.code in ("E204", "E219"), item
        assert item.span.source.text[item.span.start : item.span.end] == repr(value)


def test_every_number_has_a_range() -> None:
    """A row of the page that says `number` alone would let anything through."""
    seen = 0
    for title, model in SECTIONS:
        for key, hint in get_type_hints(model, include_extras=True).items():
            words = _values(hint)
            assert not {"number", "whole number"} & set(words), (title, key)
            seen += any(word.startswith("number") for word in words)
    assert seen > 20


def test_a_model_that_is_not_finite_is_told_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    """Ranges are those of one number: eighty factors of 10,000 are beyond float64."""
    block = ", ".join(["{alpha: 10000, ffn: {hidden: 8}}"] * 40)
    spec = load(
        Source("s.yaml", f"specc: 1\nname: small\nd_model: 32\nvocab: 96\ndecoder: {{layers: 2, block: [{block}]}}\n")
    )
    assert isinstance(spec, Spec), spec
    assert verify_layout(spec, spec.layout(), 2) == 1
    out = capsys.readouterr().out
    assert "not finite at output 0: there is nothing to compare with" in out and "DIFFERS" not in out
