"""Text to nodes: scalars, spans, and what is refused before anything is built, with both loaders of the library."""

from __future__ import annotations

import math
import os
import random
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml

from specc.source import Diagnostic, Source, Span, concise, decode, find, parse, plain, read, render, span_of
from specc.source.guard import DEPTH, NODES, SIZE

LOADERS = [yaml.SafeLoader, *([yaml.CSafeLoader] if hasattr(yaml, "CSafeLoader") else [])]
both = pytest.mark.parametrize("loader", LOADERS)


def value(text: str, loader: Any = None) -> Any:
    parsed = parse(Source("x", text), loader)
    assert parsed.root is not None and not parsed.found, parsed.found
    return plain(parsed.root)


def codes(text: str, loader: Any = None) -> list[str]:
    return [item.code for item in parse(Source("x", text), loader).found]


SCALARS = {
    "1e-5": 1e-5,
    "1E5": 1e5,
    "1.": 1.0,
    ".5": 0.5,
    "-0.0": -0.0,
    "+4": 4,
    "-4": -4,
    "017": 17,
    "0o17": 15,
    "0x1f": 31,
    "0X1f": "0X1f",
    "-0x1f": "-0x1f",
    "0b11": "0b11",
    "1_000": "1_000",
    "12:30:45": "12:30:45",
    "2001-12-14": "2001-12-14",
    "no": "no",
    "Yes": "Yes",
    "on": "on",
    "y": "y",
    "true": True,
    "False": False,
    "TRUE": True,
    "tRue": "tRue",
    "null": None,
    "~": None,
    "Null": None,
    "": None,
    ".inf": math.inf,
    "-.INF": -math.inf,
    "inf": "inf",
    "nan": "nan",
    "=": "=",
    "1e": "1e",
    "e5": "e5",
    ".": ".",
    "1.5.2": "1.5.2",
    "\u0661": "\u0661",  # a digit to Python, not to YAML
    "9" * 400: int("9" * 400),
    "9" * 401: 10**400,
    "-" + "9" * 5000: -(10**400),
    "0x" + "f" * 5000: 10**400,
}


@both
@pytest.mark.parametrize("text", SCALARS, ids=lambda text: text[:12] or "empty")
def test_plain_scalars_are_those_of_yaml_1_2(text: str, loader: Any) -> None:
    found = value(f"k: {text}\n", loader)["k"]
    assert (found, type(found)) == (SCALARS[text], type(SCALARS[text]))


@both
def test_quoted_scalars_are_texts(loader: Any) -> None:
    text = "a: 'no'\nb: \"017\"\nc: |\n  1e-5\nd: >-\n  null\n  true\n"
    assert value(text, loader) == {"a": "no", "b": "017", "c": "1e-5\n", "d": "null true"}
    assert math.isnan(value("k: .nan", loader)["k"])


@both
def test_both_loaders_agree_on_values_and_places(loader: Any) -> None:
    """Mutilated specs: the same findings or the same nodes."""
    draw = random.Random(0)
    text = (Path(__file__).parents[1] / "specs" / "tiny" / "hybrid-tiny.yaml").read_text()
    lines = text.splitlines(keepends=True)
    for _ in range(60):
        chosen = [line for line in lines if draw.random() < 0.9]
        at = draw.randrange(len(chosen))
        chosen[at] = (
            draw.choice(["\tx", "- ", "{", "]", "? a", "'", "a: b: c", "x: &a 1", "\u00e9: 1", "---"]) + chosen[at]
        )
        source = Source("x", "".join(chosen))
        mine, other = parse(source, loader), parse(source, LOADERS[0])
        assert [item.code for item in mine.found] == [item.code for item in other.found], source.text
        assert mine.root == other.root, source.text


@both
def test_spans_are_of_the_value_or_of_the_key(loader: Any) -> None:
    text = "a: {b: [1, two]}\nc:\n  d:\n    - e: 'f g'\n\n# end\n"
    root = parse(Source("x", text), loader).root
    assert root is not None

    def shown(span: Span) -> str:
        return text[span.start : span.end]

    assert shown(span_of(root, ("a", "b", 1))) == "two"
    assert shown(span_of(root, ("a", "b"), key=True)) == "b"
    assert shown(span_of(root, ("a", "b"))) == "[1, two]"
    assert shown(span_of(root, ("c", "d", 0, "e"))) == "'f g'"
    assert shown(span_of(root, ("c", "d"))) == "- e: 'f g'"
    assert shown(span_of(root, ("c", "nothing", 3))) == "d:"  # the first line of what there is
    assert span_of(root, ("c", "d", 0, "e")).place == (4, 10)
    assert find(root, ("a", "b", 2)) is None and find(root, ("a", "b", "0")) is None
    missing = find(root, ("c",))
    assert missing is not None and not missing.span.source.text[missing.span.end - 1].isspace()


HOSTILE = {
    "brackets": ("[" * 30_000 + "]" * 30_000, "E107"),
    "braces": ("{a: " * 5_000, "E107"),
    "dashes": ("- " * 5_000, "E107"),
    "questions": ("? " * 5_000, "E107"),
    "self": ("a: &a [*a]\n", "E105"),
    "bomb": (
        "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
        "E105",
    ),
    "alias": ("a: *b\n", "E105"),
    "anchored text": ("a: &b 1\n", "E105"),
    "tag": ("a: !!python/object/apply:os.system [ls]\n", "E106"),
    "own tag": ("a: !x {}\n", "E106"),
    "plain tag": ("a: ! 1\n", "E106"),
    "documents": ("a: 1\n---\nb: 2\n", "E104"),
    "ended": ("a: 1\n...\n---\nb: 2\n", "E104"),
    "merge": ("a: {<<: {b: 1}}\n", "E111"),
    "number key": ("1: a\n", "E110"),
    "null key": ("~: a\n", "E110"),
    "list key": ("? [a]\n: b\n", "E110"),
    "map key": ("? {a: b}\n: b\n", "E110"),
    "twice": ("a: 1\nb: 2\na: 3\n", "E109"),
    "twice quoted": ("a: {b: 1, 'b': 2}\n", "E109"),
    "tab": ("a:\n\tb: 1\n", "E101"),
    "unclosed": ("a: [1\n", "E101"),
    "two values": ("a: b: c\n", "E101"),
    "surrogate": ('a: "\\ud800"\n', "E101"),
    "no value": ("a: @b\n", "E101"),
    "empty": ("", "E102"),
    "spaces": (" \n\n", "E102"),
    "comment": ("# a\n", "E102"),
    "null": ("---\n", "E102"),
    "big": ("a: " + "x" * SIZE, "E103"),
}


@both
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_one_finding_inside_the_text(name: str, loader: Any) -> None:
    text, code = HOSTILE[name]
    parsed = parse(Source("x", text), loader)
    assert [item.code for item in parsed.found] == [code], [item.message for item in parsed.found]
    (item,) = parsed.found
    assert item.span is not None and 0 <= item.span.start <= item.span.end <= len(text)
    assert f"x:{item.span.place[0]}:{item.span.place[1]}" in render(item)


@both
def test_the_number_of_values_is_bounded(loader: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert NODES == 200_000
    monkeypatch.setattr("specc.source.guard.NODES", 50)  # fifty are read, with their mapping and their list
    assert codes(f"a: [{'1,' * 47}]", loader) == []
    assert codes(f"a: [{'1,' * 48}]", loader) == ["E108"]


@both
def test_depth_that_is_allowed_is_read(loader: Any) -> None:
    """The pure loader composes by recursion: what the guard lets through must not exhaust the stack."""
    assert value("[" * DEPTH + "]" * DEPTH, loader)
    assert codes("[" * (DEPTH + 1) + "]" * (DEPTH + 1), loader) == ["E107"]
    text = "".join(f"{'  ' * n}a:\n" for n in range(DEPTH))
    assert value(text, loader) and codes(text + f"{'  ' * DEPTH}a: 1\n", loader) == ["E107"]


@both
def test_directives_and_a_closed_document_are_harmless(loader: Any) -> None:
    assert value("%YAML 1.1\n---\na: no\n...\n", loader) == {"a": "no"}


def test_a_quoted_merge_key_is_a_key_like_others() -> None:
    assert value('"<<": 1\n') == {"<<": 1}


def test_all_findings_of_a_text_with_both_places_of_a_double_key() -> None:
    source = Source("x", "a: 1\nb: {c: 1, c: 2}\n3: x\na: 2\n")
    parsed = parse(source)
    assert [(item.code, item.span and item.span.place) for item in parsed.found] == [
        ("E109", (2, 11)),
        ("E110", (3, 1)),
        ("E109", (4, 1)),
    ]
    assert [span.place for span, _ in parsed.found[2].notes] == [(1, 1)]
    assert parsed.root is not None and plain(parsed.root) == {"a": 1, "b": {"c": 1}}
    assert parsed.damaged == [("b", "c"), ("a",)]
    assert "first given here" in render(parsed.found[2])


def test_marks_and_line_ends_do_not_matter() -> None:
    expected = decode("x", b"a: 1\nb: 2\n")
    for data in (b"\xef\xbb\xbfa: 1\nb: 2\n", b"a: 1\r\nb: 2\r\n", b"\xef\xbb\xbfa: 1\r\nb: 2\n"):
        assert decode("x", data) == expected


BYTES = {
    "latin": (b"a: 1\nb: caf\xe9\n", "E112", (2, 7)),
    "marked latin": (b"\xef\xbb\xbfa: caf\xe9\n", "E112", (1, 7)),
    "cut": (b"a: \xc3", "E112", (1, 4)),
    "elf": (b"\x7fELF\x02\x01\xff\xfe" * 99, "E112", (1, 7)),
    "utf-16": ("a: 1\n".encode("utf-16"), "E112", (1, 1)),
    "nul": (b"a: 1\nb: \x00\n", "E113", (2, 4)),
    "bell": (b"a: \x07\n", "E113", (1, 4)),
    "escape": (b"a: \x1b[31m\n", "E113", (1, 4)),
    "old line ends": (b"a: 1\rb: 2\r", "E113", (1, 5)),
    "turned": ("a: \u202ex\n".encode(), "E113", (1, 4)),
    "line": ("a: \u2028x\n".encode(), "E113", (1, 4)),
    "no-break": ("a:\u00a01\n".encode(), "E113", (1, 3)),
    "second mark": ("\ufeff\ufeffa: 1\n".encode(), "E113", (1, 1)),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_text_are_located(name: str) -> None:
    data, code, place = BYTES[name]
    found = decode("x", data)
    assert isinstance(found, list)
    (item,) = found
    assert item.code == code and item.span is not None and item.span.place == place
    assert all(character.isprintable() or character == "\n" for character in render(item))


def test_a_text_that_is_too_long_is_told_so_wherever_it_is_cut() -> None:
    for shift in range(3):
        data = b"a" * shift + "\u20ac".encode() * (4 * SIZE // 3 + 2)
        source = decode("x", data)
        assert isinstance(source, Source), source
        assert [item.code for item in parse(source).found] == ["E103"]


def test_what_cannot_be_read_is_told_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to("loop")
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(tmp_path / "socket"))
    (tmp_path / "locked").write_text("specc: 1\n")
    (tmp_path / "locked").chmod(0)
    names = [str(tmp_path / name) for name in ("pipe", "loop", "socket", "nothing", "nothing/at/all")]
    names += [str(tmp_path), "", "/dev/zero", "a\0b", *([str(tmp_path / "locked")] if os.geteuid() else [])]
    for name in names:
        found = read(name)
        assert isinstance(found, list) and [item.code for item in found] == ["E100"], name
        assert "cannot be read: " in found[0].message
    server.close()


def test_a_file_is_named_as_it_was_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = "my sp\u00e9c.yaml"
    Path(name).write_text("a: 1\n")
    found = read(name)
    assert found == Source(name, "a: 1\n")


def test_the_form_of_a_finding() -> None:
    source = Source("s.yaml", "a: 1\n" * 9 + "tp: 8\n")
    item = Diagnostic("E402", "cannot\nbe", Span(source, 49, 50), "1 or 2", ((Span(source, 3, 4), "set\there"),))
    assert render(item) == (
        "error[E402]: cannot be\n"
        "  --> s.yaml:10:5\n"
        "   |\n"
        " 1 | a: 1\n"
        "   |    - set here\n"
        "10 | tp: 8\n"
        "   |     ^\n"
        "   |\n"
        "help: 1 or 2\n"
    )
    assert concise(item) == "s.yaml:10:5: error[E402]: cannot be"
    assert render(Diagnostic("W1", "m", None, severity="warning")) == "warning[W1]: m\n"


def test_what_is_shown_of_a_line_is_short_and_moves_no_cursor() -> None:
    line = "x" * 500 + "\tHERE\t" + "y" * 500
    for text, at in ((line, 501), (line[::-1], 501)):
        source = Source("s\x1b[31m\udc80.yaml", f"{text}\n")
        shown = render(Diagnostic("E1", "\x1b[2J\u202e", Span(source, at, at + 4)))
        rows = shown.splitlines()
        assert max(map(len, rows)) < 180 and all(map(str.isprintable, rows))
        column = rows[4].index("^^^^")
        assert rows[3][column : column + 4] == text[at : at + 4]


def test_characters_that_do_not_print_have_their_names() -> None:
    names = {"\u00a0": "no-break space", "\u202e": "right-to-left override", "\x07": "control character"}
    for character, name in names.items():
        found = decode("x", f"a: {character}1\n".encode())
        assert isinstance(found, list)
        assert found[0].message == f"the {name} U+{ord(character):04X} is not part of specs"
        assert found[0].help == ("use a plain space" if "space" in name else None)
