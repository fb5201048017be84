"""Findings say what would be right, in the words of the language."""

from __future__ import annotations

import pytest

from specc.spec.document import LayoutDoc
from specc.spec.grammar import values
from specc.spec.language import language
from specc.spec.synonyms import SAID
from specc.tables import tables
from tests.broken import ACTIVATIONS, DECODER, FFN, PATTERN
from tests.test_bad_input import changed, findings, told
from tests.test_house import models

ROPE = "rope: {theta: 10000}"
KINDS = "linear, llama3, dynamic, yarn, longrope or proportional"
HELP = {
    "a sublayer without a body": (
        "ffn: {hidden: 64, activation: silu}",
        "ffn:",
        "E205 ffn must be a mapping, not null",
    ),
    "a list without a body": (FFN, "- parallel:", "E205 parallel must be a list, not null"),
    "no kind of scaling": (ROPE, "rope: {scaling: {}}", f"E202 the key kind is missing; kind is {KINDS}"),
    "a null kind": (ROPE, "rope: {scaling: {kind: null}}", f"E205 kind must be {KINDS}, not null"),
    "a list of kinds": (ROPE, "rope: {scaling: {kind: [linear]}}", f"E205 kind must be {KINDS}, not a list"),
    "a number of a kind": (ROPE, "rope: {scaling: {kind: 3}}", f"E205 kind must be {KINDS}, not 3"),
    "a word for a mapping": (
        "checkpoint: {save: [attention.core]}",
        "checkpoint: selective",
        "E203 checkpoint cannot be selective; selective is not in the language: "
        "values here are none, full, or a mapping of every, save",
    ),
    "a word for a number": (
        "vocab: 97",
        "vocab: 97\nembedding: {scale: sqrt}",
        "E261 there is no sqrt here; names here are d_model, vocab, max_seq, layers",
    ),
    "a key of nothing": ("activation: silu", "? : silu", "E110 a key must be a text, not null"),
    "words in capitals": (
        "kind: rms",
        "kind: RMS",
        "E203 kind cannot be RMS; did you mean rms? values here are rms, layer",
    ),
    "layouts in one": (
        "layout: {tp: 2, pp: {stages: 2}, microbatches: 4, checkpoint: {save: [attention.core]}}",
        "layout: {one: {tp: 2}}",
        f"E201 unknown key one; did you mean layouts? keys here are {', '.join(LayoutDoc.model_fields)}",
    ),
}


@pytest.mark.parametrize("name", HELP)
def test_findings_say_what_would_be_right(name: str) -> None:
    old, new, expected = HELP[name]
    found = findings(changed(DECODER, (old, new)))
    assert ["; ".join(filter(None, (f"{item.code} {item.message}", item.help))) for item in found] == [expected]


CALLED = {
    ("d_model: 32", "hidden_size: 32"): "d_model",
    ("vocab: 97", "vocab_size: 97"): "vocab",
    ("layers: 4", "num_hidden_layers: 4"): "layers",
    ("layers: 4", "n_layers: 4"): "layers",
    ("heads: 4", "num_heads: 4"): "heads",
    ("heads: 4", "n_heads: 4"): "heads",
    ("hidden: 64", "intermediate_size: 64"): "hidden",
    ("- ffn: {", "- mlp: {"): "ffn",
    ("tp: 2", "tensor_parallel: 2"): "tp",
    ("tp: 2", "tp: 2, sp: true"): "sequence_parallel",
    ("tp: 2", "fsdp: 2"): "dp",
    ("tp: 2", "Sequence-Parallel: true"): "sequence_parallel",
}


@pytest.mark.parametrize("edit", CALLED, ids=lambda edit: edit[1])
def test_what_others_call_a_key_is_one_finding_with_ours(edit: tuple[str, str]) -> None:
    (item,) = findings(changed(DECODER, edit))
    assert item.code == "E201" and item.help is not None and item.help.startswith(f"did you mean {CALLED[edit]}? ")


def test_words_of_others_are_told_apart() -> None:
    """Each belongs to a word of the language, and in no place to two."""
    own = language(tables())
    fields = [field for model in models(own.document) for field in model.model_fields.values()]
    places = [[field.alias or name for name, field in model.model_fields.items()] for model in models(own.document)]
    places += [values(field.annotation, path) for field in fields for path in ((), ("text",))]
    assert set(own.synonyms) <= {word for words in places for word in words}
    for words in places:
        names = [name for word in words for name in (word, *own.synonyms.get(word, ()))]
        assert len(set(names)) == len(names), words


@pytest.mark.parametrize("word", SAID)
@pytest.mark.parametrize(
    "edit", [("d_model: 32", "d_model: 32\n{}: 1"), ("tp: 2", "tp: 2, {}: 1")], ids=["top", "layout"]
)
def test_a_word_that_is_more_than_another_name_is_explained(word: str, edit: tuple[str, str]) -> None:
    (item,) = [item for item in findings(changed(DECODER, (edit[0], edit[1].format(word)))) if item.code == "E201"]
    assert item.help is not None and item.help.startswith(f"{SAID[word]}; keys here are ")


def test_a_hint_says_how_the_value_differs() -> None:
    (item,) = findings(changed(DECODER, ("theta: 10000", "partial_rotary_factor: 0.25")))
    assert str(item.help).startswith(f"did you mean dim? {SAID['partial_rotary_factor']}; keys here are ")
    (item,) = findings(changed(DECODER, ("hidden: 64, activation: silu", "hidden: 64, kind: geglu")))
    assert str(item.help).startswith(f"did you mean gated? {SAID['geglu']}; ")


@pytest.mark.parametrize("count", ["0", "-1", "1e9", "99999999999", "x", "", "2*2"])
def test_how_often_a_pattern_repeats_a_block(count: str) -> None:
    message = f"E204 local*{count} must repeat a block at least 1 and at most 100000 times"
    assert told(changed(PATTERN, ("local*2", f'"local*{count}"'))) == [message]


def test_a_block_of_a_bad_name_is_told_once() -> None:
    for name in ("Local", "LOCAL", "local-"):
        assert [item.code for item in findings(changed(PATTERN, ("  local:", f"  {name}:")))] == ["E208"]
    assert told(changed(PATTERN, ("local*2", "2*local"))) == ["E220 there is no block 2*local"]


OTHER_WORDS = {
    "relu6": f"relu6 is not in the language: {ACTIVATIONS}",
    "reglu": f"reglu is not in the language: it is kind: gated, activation: relu; {ACTIVATIONS}",
    "mish": f"mish is not in the language: {ACTIVATIONS}",
    "gelu_new": f"did you mean gelu_tanh? {ACTIVATIONS}",
    "rleu": f"did you mean relu? {ACTIVATIONS}",
    "Relu": f"did you mean relu? {ACTIVATIONS}",
    "squared_relu": f"did you mean relu2? {ACTIVATIONS}",
}


@pytest.mark.parametrize("word", OTHER_WORDS)
def test_only_what_may_be_a_slip_is_told_as_one(word: str) -> None:
    (item,) = findings(changed(DECODER, ("activation: silu", f"activation: {word}")))
    assert item.help == OTHER_WORDS[word]
