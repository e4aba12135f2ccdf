"""Every method has a page that says what it is, what it costs and when not to trust it."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxplain.attribution import METHODS, PRESETS

PAGES = Path(__file__).parents[2] / "docs" / "methods"
HEADINGS = ["## Formula", "## Kind and unit", "## Cost", "## When not to trust it"]


@pytest.mark.parametrize("name", METHODS)
def test_the_page_says_what_the_class_is(name: str) -> None:
    text = (PAGES / f"{name}.md").read_text(encoding="utf-8")
    assert f"`--method {name}`" in text
    assert [line for line in text.splitlines() if line.startswith("## ")] == HEADINGS
    kind = text.split("## Kind and unit\n\n")[1].partition(",")[0]
    assert kind.lower() == METHODS[name].kind
    trust = text.split("## When not to trust it\n")[1]
    assert trust.strip().startswith("- ")


def test_no_page_is_of_a_method_that_is_gone() -> None:
    assert {page.stem for page in PAGES.glob("*.md")} - {"index", "gallery"} == set(METHODS)


def test_the_index_names_every_method_and_preset() -> None:
    text = (PAGES / "index.md").read_text(encoding="utf-8")
    for name in METHODS:
        assert f"({name}.md)" in text
    for name in PRESETS:
        assert f"`{name}`" in text
