"""The pages on assessments say what metrics and tables say of themselves."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import get_args

import pytest

from voxplain.assess.metrics import GROUPS_OF, METRICS
from voxplain.assess.settings import GROUPS
from voxplain.records.assessment import COMPARISONS, PICTURES, SCORES, STAGES, SUMMARY
from voxplain.records.metric import FLAGS, Family, Metric

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
PAGE = REFERENCE / "metrics.md"
TABLES = {
    "scores": SCORES, "summary": SUMMARY, "comparisons": COMPARISONS, "stages": STAGES,
    "pictures": PICTURES,
}  # fmt: skip
HEAD = (
    "| metric | group | better | unit | range | is | where there is nothing to measure | source |\n"
    "|---|---|---|---|---|---|---|---|"
)
FAMILIES = get_args(Family)


def end_of(value: float) -> str:
    if math.isinf(value):
        return "−∞" if value < 0 else "∞"
    return f"{value:g}".replace("-", "−")


def row_of(metric: Metric) -> str:
    """Row of the page: the metric's own words, with | escaped."""
    better = {"higher": "↑ higher", "lower": "↓ lower", "none": "none"}[metric.direction]
    words = [text.rstrip(".").replace("|", "\\|") for text in (metric.summary, metric.policy)]
    groups = ", ".join(f"`{group}`" for group in GROUPS_OF[metric.name]) or "always"
    cells = [
        f"`{metric.name}`", groups, better, metric.unit,
        f"{end_of(metric.low)} to {end_of(metric.high)}",
        *words, metric.source,
    ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def rows() -> dict[str, tuple[str, str]]:
    """Family and row of each metric on the page, in its order."""
    found = {}
    for section in PAGE.read_text("utf-8").split("\n## ")[1:]:
        family, _, text = section.partition("\n")
        for row, name in re.findall(r"^(\| `(\w+)` \|.*)$", text, re.MULTILINE):
            assert name not in found, f"{name} is there twice"
            found[name] = (family.lower(), row)
    return found


def test_every_metric_is_there_and_no_other() -> None:
    assert set(rows()) == set(METRICS)


@pytest.mark.parametrize("name", METRICS)
def test_the_row_is_what_the_metric_says(name: str) -> None:
    metric = METRICS[name]
    family, row = rows()[name]
    assert family == metric.family
    assert row == row_of(metric)


def test_every_group_gives_a_metric() -> None:
    assert {group for groups in GROUPS_OF.values() for group in groups} == set(GROUPS)


def test_every_flag_is_named() -> None:
    text = PAGE.read_text("utf-8").replace("\n", " ")
    for flag in FLAGS:
        assert f"`{flag}`" in text


@pytest.mark.parametrize("name", TABLES)
def test_every_column_of_a_table_is_told(name: str) -> None:
    text = (REFERENCE / "outputs.md").read_text("utf-8").partition("\n## Assessments\n")[2]
    part = text.partition(f"\n`{name}`, one row ")[2]
    for other in TABLES:
        part = part.partition(f"\n`{other}`, one row ")[0]
    missing = [column for column in TABLES[name] if f"`{column}`" not in part]
    assert not missing, f"{name}: {missing} not told in outputs.md"
