"""What is wrong with a spec: each code alone, all findings of a spec at once, none that nobody caused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specc.interop.library import gaps
from specc.source import Diagnostic, Source, render
from specc.spec import Spec, load
from specc.tables import tables
from tests.broken import ACTIVATIONS, BOTH, CASES, DECODER, FFN, PATTERN, Case

ROOT = Path(__file__).parents[1]
BASES = {"decoder": DECODER, "both": BOTH, "pattern": PATTERN}


def findings(text: str) -> list[Diagnostic]:
    found = load(Source("s.yaml", text))
    return [] if isinstance(found, Spec) else found


def told(text: str) -> list[str]:
    """`E402 4 heads cannot ...`, in order."""
    return [f"{item.code} {item.message}" for item in findings(text)]


def changed(base: str, *edits: tuple[str, str]) -> str:
    for old, new in edits:
        assert old in base, old
        base = base.replace(old, new, 1)
    return base


@pytest.mark.parametrize("base", BASES)
def test_the_bases_are_valid(base: str) -> None:
    assert not findings(BASES[base])


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.code)
def test_a_breakage_gives_its_code_alone_at_its_place(case: Case) -> None:
    found = findings(case.text)
    assert [item.code for item in found] == [case.code], [render(item) for item in found]
    assert found[0].span is not None and found[0].span.start == case.start
    assert f"error[{case.code}]" in render(found[0])


def test_every_code_has_a_breakage_and_a_line_in_the_documents() -> None:
    source = "".join(path.read_text() for path in (ROOT / "specc").rglob("*.py"))
    codes = set(re.findall(r'"([EW]\d{3})"', source)) | set(gaps().reasons)
    interchange = {code for code in codes if code.startswith("E6")}  # in test_interchange, test_weights and test_gaps
    elsewhere = {
        "E100",
        "E103",
        "E108",
        "E112",
        "E113",
        "E209",
        "E241",
        "E249",
        "E299",
        "E413",
        "E441",
        "E434",
        "E435",
        "E701",
        "E702",
        "E703",
        "E711",
        "E712",
        "W501",
        "W502",
        "W503",
    }  # of files, sizes, graphs and devices
    assert {case.code for case in CASES} | elsewhere | interchange == codes
    rows = re.findall(r"^\| ([EW]\d{3}) \| .+ \| (.+) \|$", (ROOT / "docs" / "errors.md").read_text(), re.M)
    assert sorted(code for code, _ in rows) == sorted(codes)
    examples = dict(rows)
    for case in CASES:
        shown = examples[case.code].replace("`", "")
        text = " ".join(line.strip() for line in case.text.splitlines())
        assert (shown in text and shown not in case.base) or "..." in shown, f"{case.code}: {shown}"


CHOICES = {
    "E201": "did you mean kv_heads? keys here are heads, kv_heads, head_dim, v_head_dim, bias, scale, dropout, "
    "softcap, qk_norm, output_gate, sub_norm, kv_to, kv_from, value_residual, causal, window, chunk, clip, rope, "
    "alibi, relative_bias, temperature, sinks, v_norm, tied_kv",
    "E202": "keys here are kind, hidden, activation, bias, clamp, up_offset, dropout, gate_scale, sub_norm",
    "E203": f"did you mean silu? {ACTIVATIONS}",
    "E210": "give head_dim, or heads that divide it: 1, 2, 4, 8, 16 or 32",
    "E211": "with 4 heads, kv_heads can be 1, 2 or 4",
    "E213": "tokens are 0 to 95",
    "E217": "choose from encoder, decoder, head",
    "E220": "did you mean joined? blocks here are local, global, joined",
    "E222": "did you mean attention? components here are attention, ffn",
    "E402": "tp can be 1, 2 or 4; or with rules: {attention.heads: none} every rank has all",
    "E403": "tp can be 1",
    "E405": "there can be at most 1 stage",
    "E406": "give at least 2",
    "E431": "per_rank can be 1",
    "E432": "give one of gpipe, 1f1b, looped_bfs, interleaved_1f1b or interleaved_zero_bubble",
    "E433": "give 4 or 6",
    "E407": "layers are layers.0 to layers.3",
    "E412": "did you mean attention.core? results here are attention.q, attention.k, attention.v, attention.core, "
    "attention.o, ffn.up, ffn.act, ffn.down",
}


@pytest.mark.parametrize("code", CHOICES)
def test_findings_name_the_valid_choices(code: str) -> None:
    (case,) = (case for case in CASES if case.code == code)
    assert [item.help for item in findings(case.text)] == [CHOICES[code]]


def test_choices_of_tp_are_good_for_the_whole_model() -> None:
    text = changed(DECODER, ("tp: 2", "tp: 6"), ("heads: 4", "heads: 12, head_dim: 8"), ("hidden: 64", "hidden: 20"))
    assert told(text) == ["E402 hidden = 20 cannot be split over tp = 6"]
    assert findings(text)[0].help == "tp can be 1, 2, 3 or 4; or with rules: {ffn.ffn: none} every rank has all"
    for tp in (1, 2, 4):
        assert not findings(text.replace("tp: 6", f"tp: {tp}"))
    assert not findings(changed(DECODER, ("heads: 4", "heads: 4, kv_heads: 1")))
    (item,) = findings(changed(DECODER, ("heads: 4", "heads: 1, head_dim: 8")))
    assert (item.message, item.help) == (
        "1 head cannot be split over tp = 2",
        "tp can be 1; or with rules: {attention.heads: none} every rank has all",
    )
    assert [(span.place, note) for span, note in item.notes] == [((10, 26), "heads is set here")]


VERSIONS = {
    "2": "E204 specc must be at most 1, not 2",
    "0": "E204 specc must be at least 1, not 0",
    '"1"': 'E205 specc must be a whole number, not "1"',
    "1.0": "E205 specc must be a whole number, not 1.0",
    "true": "E205 specc must be a whole number, not true",
    "null": "E205 specc must be a whole number, not null",
}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_version_is_the_number_one(version: str) -> None:
    assert told(changed(DECODER, ("specc: 1", f"specc: {version}"))) == [VERSIONS[version]]


def test_all_findings_at_once_whatever_their_kind() -> None:
    text = changed(
        DECODER,
        ("vocab: 97", "vocab: -97"),
        ("max_seq: 64", "max_seq: 64\nmax_seq: 64"),
        ("theta: 10000", "theta: ten"),
        ("kind: rms", "kind: batch"),
        (
            "- ffn: {hidden: 64, activation: silu}",
            "- attention: {heads: 6}\n    - ffn: {hiden: 63}\n    - ffn: {hidden: 1}",
        ),
        ("stages: 2", "stages: 9"),
        ("attention.core", "attention.cor"),
    )
    assert told(text) == [
        "E204 vocab must be at least 1, not -97",
        "E109 the key max_seq is given twice",
        "E203 kind cannot be batch",
        "E261 there is no ten here",
        "E210 d_model = 32 cannot be split into 6 heads",
        "E201 unknown key hiden",
        "E402 hidden = 1 cannot be split over tp = 2",
        "E405 4 layers cannot be cut into 9 stages",
        "E406 1f1b over 9 stages needs as many microbatches, not 4",
    ]  # but nothing of attention.cor, which a broken block might have


STAGES = "pp: {stages: 2, starts: [layers.3]}, checkpoint: {save: [attention.core]}"
UNCAUSED = {
    "no model width": (DECODER, ("d_model: 32\n", ""), ["E202 the key d_model is missing"]),
    "no tokens": (BOTH, ("vocab: 96", "vocab: 0"), ["E204 vocab must be at least 1, not 0"]),
    "no heads": (DECODER, ("heads: 4, ", ""), ["E202 the key heads is missing"]),
    "a key that is misspelt": (DECODER, ("vocab:", "vocabb:"), ["E201 unknown key vocabb"]),
    "the only stack misspelt": (DECODER, ("decoder:", "decodr:"), ["E201 unknown key decodr"]),
    "no stack": (
        BOTH[: BOTH.index("encoder:\n")],
        ("tied: [encoder, decoder, head]", "tied: true"),
        ["E230 a model needs a decoder, an encoder, or both"],
    ),
    "a tied stack misspelt": (
        DECODER.replace("vocab: 97\n", "vocab: 97\nembedding: {tied: true}\n"),
        ("decoder:", "decodr:"),
        ["E201 unknown key decodr"],
    ),
    "a stack of another name": (
        PATTERN.replace("vocab: 96\n", "vocab: 96\nembedding: {tied: true}\n").replace("tp: 2", f"tp: 3, {STAGES}"),
        ("decoder:", "transformer:"),
        ["E230 a model needs a decoder, an encoder, or both", "E201 unknown key transformer"],
    ),
    "no stack and an empty layout": (
        DECODER[: DECODER.index("decoder:")] + "layout: {}\n",
        ("name: small", "name: nothing"),
        ["E230 a model needs a decoder, an encoder, or both"],
    ),
    "an encoder misspelt": (BOTH, ("encoder:\n", "encodr:\n"), ["E201 unknown key encodr"]),
    "a decoder misspelt": (BOTH, ("decoder:\n", "decodr:\n"), ["E201 unknown key decodr"]),
    "a sublayer of another kind": (DECODER, ("- ffn: {hidden: 64,", "- fnn: {hidden: 64,"), ["E201 unknown key fnn"]),
    "a component of another kind": (
        DECODER,
        ("- ffn: {hidden: 64, activation: silu}", "- ffn: 64"),
        ["E205 ffn must be a mapping, not 64"],
    ),
    "a block of another kind": (
        PATTERN,
        ("  joined:\n", "  joined: 3\n  other:\n"),
        ["E205 joined must be a list or a mapping, not 3"],
    ),
    "a pattern of another kind": (
        PATTERN,
        ("pattern: {head: [joined], cycle: [local*2, global], tail: [joined]}", "pattern: local"),
        ["E205 pattern must be a list or a mapping, not local"],
    ),
    "a stack of another kind": (
        DECODER,
        ("decoder:\n", "decoder: 4\nother:\n"),
        ["E205 decoder must be a mapping, not 4", "E201 unknown key other"],
    ),
    "no layers": (DECODER, ("  layers: 4\n", ""), ["E202 the key layers is missing"]),
    "a layout of another kind": (BOTH, ("four: {tp: 2, pp: 2}", "four: 2"), ["E205 four must be a mapping, not 2"]),
    "a broken base": (
        PATTERN,
        ("heads: 4, kv_heads: 2", "heads: four, kv_heads: 3"),
        ["E205 heads must be a whole number, not four"],
    ),
    "a broken change": (PATTERN, ("theta: 1000}", "theta: 1000, thetta: 1}"), ["E201 unknown key thetta"]),
    "a null for what is not": (PATTERN, ("kv_heads: null", "kw_heads: null"), ["E201 unknown key kw_heads"]),
    "no such like": (PATTERN, ("like: local", "like: locl"), ["E220 there is no block locl"]),
    "a base that only a misspelt like would name": (
        PATTERN.replace("local*2, global", "global"),
        ("like: local", "like: locl"),
        ["E220 there is no block locl"],
    ),
    "an unread merge": (DECODER, ("d_model: 32", "<<: {}"), ["E111 merge keys are not part of specs"]),
    "a vocabulary of one": (
        DECODER.replace("tp: 2", "tp: 2, dp: 2"),
        ("vocab: 97", "vocab: 1"),
        ["E403 a vocabulary of 1 leaves some of tp = 2 ranks without a token"],
    ),
    "a layout with a value given twice": (
        DECODER.replace("tp: 2", "tp: 1, sequence_parallel: true"),
        ("tp: 1", "tp: 1, tp: 2"),
        ["E109 the key tp is given twice"],
    ),
    "no blocks at all": (
        PATTERN,
        ("blocks:\n", "blocks: 3\nother:\n"),
        ["E205 blocks must be a mapping, not 3", "E201 unknown key other"],
    ),
    "a result of a broken change": (
        PATTERN.replace("{tp: 2}", "{checkpoint: {save: [ffn.core]}}"),
        ("theta: 1000}", "theta: 1000, thetta: 1}"),
        ["E201 unknown key thetta"],
    ),
    "a result of no component": (
        DECODER.replace("attention.core", "ffn.up"),
        (FFN, "- {}"),
        [f"E223 a sublayer is one of {', '.join(tables().components)}, parallel, this is none of them"],
    ),
    "unsplit heads": (DECODER, ("heads: 4", "heads: 4, kv_heads: 3"), ["E211 4 heads cannot share 3 kv_heads evenly"]),
}


@pytest.mark.parametrize("name", UNCAUSED)
def test_no_finding_follows_from_another(name: str) -> None:
    base, edit, expected = UNCAUSED[name]
    found = told(changed(base, edit))
    assert found == expected


def test_a_broken_layout_hides_nothing_of_another() -> None:
    text = changed(BOTH, ("one: {}", "one: {tpp: 1}"), ("tp: 2", "tp: 3"))
    assert [item.split()[0] for item in told(text)] == ["E201", "E402"]
    assert [[span.place[0] for span, _ in item.notes] for item in findings(text)[1:]] == [[10, 15, 16]]


def test_bounds_of_whole_numbers_of_any_length_and_of_the_first_layer() -> None:
    huge = "9" * 401
    assert told(changed(DECODER, ("heads: 4", f"heads: 4, scale: {huge}"))) == [
        f"E204 scale must be finite, not {huge[:57]}..."
    ]
    assert told(changed(DECODER, ("heads: 4", f"heads: -{huge}")))[0].startswith(
        "E204 heads must be at least 1, not -99"
    )
    text = changed(DECODER, ("stages: 2", "stages: 2, starts: [layers.0]"))
    assert told(text) == ["E407 stage 0 starts with layers.0, no other does"]


def test_what_stands_in_a_changed_block_is_found_where_it_is_written() -> None:
    text = changed(PATTERN, ("kv_heads: null", "kv_heads: 3"), ("theta: 1000}", "theta: -1}"))
    places = [(item.code, item.span and text[item.span.start : item.span.end]) for item in findings(text)]
    assert places == [("E204", "-1")]
    text = changed(PATTERN, ("kv_heads: null", "kv_heads: 3"))
    places = [(item.code, item.span and text[item.span.start : item.span.end]) for item in findings(text)]
    assert places == [("E211", "3")]
    text = changed(PATTERN, ("kv_heads: null", "heads: null"))
    assert told(text) == ["E202 the key heads is missing"]
    (item,) = findings(text)
    assert item.span is not None and item.span.place[0] == 9
    text = changed(PATTERN, ("heads: 4, kv_heads: 2", "heads: 6, head_dim: 8, kv_heads: 2"), ("tp: 2", "tp: 4"))
    (item,) = findings(text)  # one for both blocks: it is one number
    assert (item.message, item.notes[0][0].place) == ("6 heads cannot be split over tp = 4", (7, 26))


def test_what_changes_the_second_of_a_kind_is_found_where_it_is_written() -> None:
    base = changed(PATTERN, ("    - ffn: {kind: gated, hidden: 64}", f"    {FFN}\n    {FFN}"))
    for change, code, place in (
        ("hidden: -1", "E204", "-1"),
        ("hidden: 1", "E402", "2"),
        ("kind: big", "E203", "big"),
    ):
        text = changed(base, ("with: {attention", f"with: {{ffn2: {{{change}}}, attention"))
        (item,) = findings(text)
        assert item.span is not None and (item.code, text[item.span.start : item.span.end]) == (code, place)
        assert [text[span.start : span.end] for span, _ in item.notes] == (["1"] if code == "E402" else [])


def test_the_second_example_of_the_design_names_what_is_not_there_yet() -> None:
    text = """\
specc: 1
name: hybrid
d_model: 2560
vocab: 262144
blocks:
  local:
    - attention: {heads: 8, kv_heads: 4, head_dim: 256, qk_norm: true, window: 1024, rope: {theta: 10000}}
    - ffn: {kind: gated, hidden: 10240, activation: gelu_tanh}
  global:
    like: local
    with: {attention: {window: null, rope: {theta: 1000000, scaling: {kind: linear, factor: 8}}}}
decoder:
  layers: 34
  pattern: [local*5, global]
layouts:
  laptop: {}
  h100x64: {tp: 8, sequence_parallel: true, pp: {stages: 2, schedule: interleaved_1f1b, virtual: 2}, fsdp: true,
            checkpoint: {save: [attention.core, attention.o]}}
"""
    assert told(text) == [
        "E201 unknown key virtual",
        "E201 unknown key fsdp",
    ]
    for gone in (", virtual: 2", ", fsdp: true"):
        text = changed(text, (gone, ""))
    assert told(text) == []  # each two ranks have one of the 4 kv_heads
    assert told(text.replace("tp: 8", "tp: 16")) == ["E402 8 heads cannot be split over tp = 16"]
