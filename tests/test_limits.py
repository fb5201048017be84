"""Pages on families say what mappings and gaps say, and name no family as missing that is there."""

from __future__ import annotations

import pytest
from transformers import CONFIG_MAPPING

from specc.interop.library import families, gaps
from specc.spec.synonyms import SAID
from tests.family_pages import DOCS, PAGES, names, page

LIMITS = (DOCS / "limits.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_the_page_is_current(name: str) -> None:
    """`python -m tests.family_pages` makes it so."""
    assert page(name) == (DOCS / name).read_text(encoding="utf-8")


def test_a_family_of_the_page_has_a_mapping_only_where_some_values_are_fine() -> None:
    named = names(LIMITS)
    assert len(named) > 40 and {*CONFIG_MAPPING} >= named
    for name in named & set(families()):
        assert all(gap.imports or gap.but or gap.only for gap in gaps().families[name].gaps)


def test_words_of_layouts_that_the_page_names_are_told_as_missing() -> None:
    for word in ("cp", "ep"):
        assert f"`{word}`" in LIMITS and SAID[word] == "not yet in the language"
