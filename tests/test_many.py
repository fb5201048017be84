"""What findings cost that are not shown: hardly anything."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from specc.source import MOST, Diagnostic, Source
from specc.spec import Spec, load
from tests.broken import DECODER, FFN, PATTERN
from tests.test_bad_input import changed


class Read(str):
    """A text that counts the characters that are taken out of it."""

    taken = 0

    def __getitem__(self, key: Any) -> str:
        found = super().__getitem__(key)
        Read.taken += len(found)
        return found


MANY: dict[str, Callable[[int], str]] = {
    "keys of the document": lambda n: DECODER + "".join(f"kk{k}: 1\n" for k in range(n)),
    "keys of a component in one line": lambda n: changed(
        DECODER, ("{hidden: 64,", f"{{hidden: 64, {', '.join(f'k{k}: 1' for k in range(n))},")
    ),
    "blocks with one each": lambda n: (
        f"{DECODER}blocks:\n" + "".join(f"  b{k}: [{{ffn: {{x: 1}}}}]\n" for k in range(n))
    ),
    "words of a list": lambda n: f"{DECODER}embedding: {{tied: [{', '.join(['x'] * n)}]}}\n",
    "changes of a block": lambda n: changed(
        PATTERN, ("kv_heads: null,", "kv_heads: null, " + "".join(f"k{k}: 1, " for k in range(n)))
    ),
}


def cost(text: str) -> tuple[list[Diagnostic], int, int]:
    """What is found, calls that it took, and characters that were read."""
    calls = Read.taken = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        found = load(Source("s.yaml", Read(text)))
    finally:
        sys.setprofile(None)
    assert not isinstance(found, Spec)
    return found, calls, Read.taken


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Those that are compared with others."""
    compared: list[str] = []
    monkeypatch.setattr("difflib.get_close_matches", lambda word, *_: compared.append(word) or [])
    for reader in ("specc.source.guard._parse", "specc.source.yaml._compose"):  # libyaml wants a plain text
        real = getattr(yaml, reader.rpartition("_")[2])
        monkeypatch.setattr(reader, lambda text, real=real, **options: real(str(text), **options))
    return compared


@pytest.mark.parametrize("name", MANY)
def test_findings_beyond_those_shown_cost_little(name: str, words: list[str]) -> None:
    """No word is compared for them, and calls and characters read grow as the text does."""
    few, calls, taken = cost(MANY[name](2000))
    many, more, longer = cost(MANY[name](4000))
    assert more < 2.2 * calls and longer < 2.2 * taken + 2000
    assert len(few) >= 2000 and len(many) >= 4000 and len(words) <= 6 * MOST
    for found in (few, many):
        assert all(item.help for item in found[:MOST]) and not any(item.help for item in found[MOST:])


def test_blocks_beyond_those_that_there_can_be_cost_little(words: list[str]) -> None:
    texts = [f"{DECODER}blocks:\n" + "".join(f"  b{k}: [{FFN[2:]}]\n" for k in range(n)) for n in (2000, 4000)]
    (few, calls, _), (many, more, _) = map(cost, texts)
    assert [item.code for item in few] == [item.code for item in many] == ["E204"] and more < 2.2 * calls
