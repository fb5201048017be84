"""Anything in any place of a spec, texts without end, and what only graphs show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from specc.cli import cli
from specc.source import Source, plain, render
from specc.source.yaml import parse
from tests.broken import DECODER, SEEN
from tests.test_bad_input import BASES, changed, findings


def mutations(node: Any, path: tuple[Any, ...] = ()) -> Any:
    """Every place of a document."""
    yield path
    if isinstance(node, dict):
        for key, inner in node.items():
            yield from mutations(inner, (*path, key))
    elif isinstance(node, list):
        for n, inner in enumerate(node):
            yield from mutations(inner, (*path, n))


OTHERS = (None, True, -1, 0, 10**30, 1e-5, float("inf"), "x", "", [], {}, [None], {"x": 1}, [{}], {"kind": "x"})


@pytest.mark.parametrize("base", BASES)
def test_any_value_in_any_place_is_fine_or_told_with_its_place(base: str) -> None:
    """Every node of a valid spec replaced by every kind of value, or taken out, or joined by an unknown key."""
    root = parse(Source("s.yaml", BASES[base])).root
    assert root is not None
    for path in mutations(plain(root)):
        for other in (*OTHERS, "out", "more"):
            document = plain(root)
            parent = document
            for part in path[:-1]:
                parent = parent[part]
            if not path:
                document = other
            elif other == "out":
                del parent[path[-1]]
            elif other == "more" and isinstance(parent, dict):
                parent["unheard"] = 1
            else:
                parent[path[-1]] = other
            text = yaml.dump(document, Dumper=getattr(yaml, "CSafeDumper", yaml.SafeDumper), sort_keys=False)
            for item in findings(text):
                assert item.span is not None and item.span.end <= len(text), (path, other, item)
                assert render(item)


def test_checks_of_graphs_have_codes_and_places_too(tmp_path: Path) -> None:
    """E413, W501 and W502 come from the compiled graph; a warning alone is no error."""
    text = changed(DECODER, ("heads: 4", "heads: 4, dropout: 0.1"), ("vocab: 97", "vocab: 97\ndropout: 0.1"))
    (tmp_path / "s.yaml").write_text(text)
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "s.yaml")], standalone_mode=False)
    assert result.return_value == 1 and "error[E413]" in result.stdout and "s.yaml:13:71" in result.stdout
    (tmp_path / "s.yaml").write_text(changed(DECODER, ("attention.core", "ffn.down")))
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "s.yaml")], standalone_mode=False)
    assert result.return_value == 0 and "warning[W501]" in result.stdout and "1 spec fine" in result.stderr
    text = changed(
        DECODER, ("layers: 4", "layers: 16"), ("stages: 2", "stages: 2, starts: [layers.15]"), ("vocab: 97", "vocab: 8")
    )
    (tmp_path / "s.yaml").write_text(text)
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "s.yaml")], standalone_mode=False)
    assert result.return_value == 0 and "1 spec fine" in result.stderr
    assert "warning[W502]: stages do 94 and 6 % of the flops; balanced they would do 50 and 50 %" in result.stdout
    assert "s.yaml:12:" in result.stdout and "help: leave starts out, or give layers.8\n" in result.stdout


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("patch: 4", "pach: 4", "E201"),
        ("kind: patches", "kind: pixels", "E203"),
        ("image: 8", "image: 0", "E204"),
        ("image: 8", "image: big", "E205"),
        ("head: none", "head: {kind: clases}", "E203"),
    ],
)
def test_what_is_wrong_in_a_stem_does_not_lead_to_a_vocab_that_is_missed(old: str, new: str, code: str) -> None:
    (found,) = findings(changed(SEEN, (old, new)))
    assert found.code == code


@pytest.mark.parametrize(
    ("mixer", "given", "idle"),
    [
        ("mamba: {}", "segments, positions, mask", ["positions"]),
        ("ffn: {hidden: 8}", "segments, positions", ["segments", "positions"]),
        ("ffn: {hidden: 8}", "mask", ["mask"]),
        ("attention: {heads: 4, rope: {}}", "segments, positions, mask", []),
        ("attention: {heads: 4}", "positions", ["positions"]),
    ],
)
def test_an_input_that_nothing_reads_is_told(tmp_path: Path, mixer: str, given: str, idle: list[str]) -> None:
    inputs = ("vocab: 97", f"vocab: 97\ninputs: [{given}]")
    plain = ("checkpoint: {save: [attention.core]}", "checkpoint: none")
    text = changed(DECODER, ("attention: {heads: 4, rope: {theta: 10000}}", mixer), inputs, plain)
    (tmp_path / "s.yaml").write_text(text)
    result = CliRunner().invoke(cli, ["check", str(tmp_path / "s.yaml")], standalone_mode=False)
    told = re.findall(r"error\[E249\]: (\w+) would be read by nothing", result.stdout)
    assert told == idle and result.return_value == bool(idle), result.stdout
    for name in idle:
        line = text.splitlines()[4]
        assert f"s.yaml:5:{line.index(name) + 1}" in result.stdout


def test_huge_and_repetitive_texts_are_told_of_in_few_words() -> None:
    for old, new in (
        ("hidden: 64", f"hidden: {'9' * 5000}"),
        ("activation: silu", f"activation: {'x' * 5000}"),
        ("name: small", f"name: {'x' * 5000}"),
        ("vocab: 97", f"vocab: 97\n{'k' * 1000}: 1"),
        ("vocab: 97", f'vocab: 97\n"{"k" * 1000}": 1\n"{"k" * 1000}": 1'),
    ):
        for item in findings(changed(DECODER, (old, new))):
            assert len(item.message) < 250 and len(render(item)) < 1500
    many = findings(DECODER + "".join(f"k{n}: 1\n" for n in range(300)))
    assert [item.code for item in many] == ["E201"] * 300
