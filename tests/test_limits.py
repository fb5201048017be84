"""The page on what the language does not have names no family that it has."""

from __future__ import annotations

import re
from pathlib import Path

from transformers import CONFIG_MAPPING

from specc.interop.library import families
from specc.spec.synonyms import SAID

PAGE = (Path(__file__).parents[1] / "docs" / "limits.md").read_text(encoding="utf-8")
ROWS = [line.split("|")[1:4] for line in PAGE.splitlines() if line.startswith("|")][2:]
NAMED = {name for _, names, _ in ROWS for name in re.findall(r"`([\w.-]+)`", names)}


def test_no_family_of_the_page_has_a_mapping() -> None:
    assert len(NAMED) > 20 and NAMED.isdisjoint(families())
    assert {*CONFIG_MAPPING} >= NAMED


def test_words_of_layouts_that_the_page_names_are_told_as_missing() -> None:
    for word in ("cp", "ep"):
        assert f"`{word}`" in PAGE and SAID[word] == "not yet in the language"
