"""The page of the language is what the models of a document say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specc.source import Source
from specc.spec import Spec, load
from specc.spec.document import Document
from specc.spec.layout_rules import save_names
from specc.spec.reference import MARK, SECTIONS, page
from tests.broken import BOTH
from tests.test_house import models

PAGE = Path(__file__).parents[1] / "docs" / "language.md"


def test_the_page_is_current() -> None:
    """`python -m specc.spec.reference docs/language.md` makes it so."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text and page(text.partition(MARK)[0] + MARK) == text
    with pytest.raises(ValueError, match="no line"):
        page("# Another page\n")


def test_every_mapping_of_a_document_has_a_section_and_every_key_a_meaning() -> None:
    assert {model for _, model in SECTIONS} == set(models(Document))
    generated = PAGE.read_text(encoding="utf-8").partition(MARK)[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.*) \|$", generated, re.M)
    assert [key for key, *_ in rows] == [
        field.alias or name for _, model in SECTIONS for name, field in model.model_fields.items()
    ]
    for key, value, default, meaning in rows:
        assert value and default and meaning.endswith("."), key


def test_the_page_names_what_checkpointing_can_keep() -> None:
    hand = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    for text in (BOTH, BOTH.replace("hidden: 64", "kind: gated, hidden: 64")):
        found = load(Source("s.yaml", text))
        assert isinstance(found, Spec)
        for name in save_names(found.model):
            assert f"`{name.removeprefix('cross_')}`" in hand and "the same of `cross_attention`" in hand
