"""Patterns of several names, and keys of one stack."""

from __future__ import annotations

import re

import pytest

from tests.test_language import HEAD, A, F, files, spec

ZIPPED = {
    "{x: [a], y: [c, d]}": "[a_c, a_d]",
    "{x: [a, b], y: [c*2, d]}": "[a_c, b_c, a_d, b_c, a_c, b_d]",
    "{x: {head: [b], cycle: [a]}, y: [c, d]}": "{head: [b_c], cycle: [a_d, a_c]}",
    "{x: {head: [b*3], cycle: [a, b]}, y: {cycle: [c], tail: [d*2]}}": (
        "{head: [b_c*3], cycle: [a_c, b_c], tail: [a_d, b_d]}"
    ),
    "{x: [a], y: [c], z: [d]}": "[a_c_d]",
}


@pytest.mark.parametrize("patterns", ZIPPED)
def test_patterns_are_blocks_joined(patterns: str) -> None:
    """Components are numbered through, and what a block is like stays where it is written."""
    parts = {"a": f"[{A}]", "b": "{like: a, with: {attention: {heads: 2}}}"}
    parts |= {"c": f"[{F}, {A}]", "d": "{like: c, with: {attention: {bias: true}, ffn: {hidden: 8}}}"}
    used = {name for name in parts if re.search(rf"\b{name}\b", patterns)}
    used |= {{"b": "a", "d": "c"}[name] for name in used & {"b", "d"}}
    blocks = "".join(f"  {name}: {text}\n" for name, text in parts.items() if name in used)
    zipped = f"{HEAD}blocks:\n{blocks}decoder: {{layers: 7, patterns: {patterns}}}\n"
    written = {"a": A, "b": A.replace("4", "2"), "c": f"{F}, {A}", "d": f"ffn: {{hidden: 8}}, {A[:-1]}, bias: true}}"}
    names = re.findall(r"\w_\w(?:_\w)?", ZIPPED[patterns])
    joined = "".join(
        f"  {name}: [{', '.join(written[part] for part in name.split('_'))}]\n" for name in dict.fromkeys(names)
    )
    assert files(zipped) == files(f"{HEAD}blocks:\n{joined}decoder: {{layers: 7, pattern: {ZIPPED[patterns]}}}\n")


def test_joined_blocks_have_names_of_their_own() -> None:
    """A block of that name is another, whether it is named with an underscore or without."""
    for name in ("a_b", "ab"):
        blocks = f"blocks: {{a: [{A}], b: [{F}], {name}: [{F}, {A}]}}\n"
        found = spec(f"{HEAD}{blocks}decoder: {{layers: 3, patterns: {{x: [a, {name}], y: [b]}}}}\n")
        assert [block.name for run in found.model.stacks[0].runs for block in run.blocks] == ["a_b2", f"{name}_b"]


def test_a_stack_has_keys_of_its_own() -> None:
    """Of norm and embedding: an encoder that is as the model, a decoder that is not."""
    cross = "cross_attention: {heads: 4}"
    text = f"""\
{HEAD}norm: {{kind: layer, eps: 1e-3}}
embedding: {{scale: 2, positions: learned}}
encoder: {{layers: 1, block: [{A}]}}
decoder:
  layers: 2
  norm: {{eps: 1e-2, placement: output}}
  embedding: {{scale: sqrt(layers * 8), positions: sinusoidal, dropout: 0.1}}
  block: [{cross}]
"""
    found = spec(text)
    encoder, decoder_ = found.model.stacks
    assert encoder.embed is not None and decoder_.embed is not None
    assert encoder.embed.positions is not None and decoder_.embed.positions is not None
    assert (encoder.embed.scale, encoder.embed.positions.kind, encoder.embed.dropout) == (2, "learned", 0)
    assert (decoder_.embed.scale, decoder_.embed.positions.kind, decoder_.embed.dropout) == (4, "sinusoidal", 0.1)
    branch = decoder_.runs[0].blocks[0].sublayers[0].branches[0]
    assert branch.post is not None and (branch.post.kind, branch.post.eps) == ("layer", 1e-2)
    assert decoder_.final_norm == branch.post and encoder.final_norm != branch.post
    made = files(text).source
    assert "encoder_position_embedding" in made and "decoder_position_embedding" not in made and "sinusoid(" in made
