"""The page of the language is what the models of a document say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from specc.spec.grammar import values
from specc.spec.language import language
from specc.spec.reference import MARK, SECTIONS, page
from specc.tables import tables
from tests.test_house import models

PAGE = Path(__file__).parents[1] / "docs" / "language.md"


def test_the_page_is_current() -> None:
    """`python -m specc.spec.reference docs/language.md` makes it so."""
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text and page(text.partition(MARK)[0] + MARK) == text
    with pytest.raises(ValueError, match="no line"):
        page("# Another page\n")


def test_every_mapping_of_a_document_has_a_section_and_every_key_a_meaning() -> None:
    assert {model for _, model in SECTIONS} == set(models(language(tables()).document))
    generated = PAGE.read_text(encoding="utf-8").partition(MARK)[2]
    rows = re.findall(r"^\| `(\w+)` \| (.+) \| (.+) \| (.*) \|$", generated, re.M)
    assert [key for key, *_ in rows] == [
        field.alias or name for _, model in SECTIONS for name, field in model.model_fields.items()
    ]
    for key, value, default, meaning in rows:
        assert value and default and meaning.endswith("."), key


def test_the_page_names_what_checkpointing_can_keep() -> None:
    hand = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    for component in tables().components.values():
        kinds = [{"kind": kind} for kind in values(component.config, ("kind",))] or [{}]
        for config in (component.config(**component.smallest, **kind) for kind in kinds):
            for name in component.results(config):
                assert f"`{component.key.removeprefix('cross_')}.{name}`" in hand, (component.key, name)
    assert "the same of `cross_attention`" in hand
