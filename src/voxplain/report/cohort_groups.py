"""Sections of a cohort's page about groups of patients, and about two models or cohorts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from voxplain.report.cohort_blocks import figure_block, table_block, words_block
from voxplain.report.cohort_matrix import difference_matrix
from voxplain.report.cohort_rows import Column, counted
from voxplain.study.summary import Comparison, StudySummary

_BIAS = (
    Column("column", kind="text"), Column("feature", kind="text"),
    Column("groups", kind="text"), Column("test", kind="text"),
    Column("effect", "effect", "number", "low", "high"),
    Column("effect_name", "kind of effect", "text"), Column("p", kind="p"), Column("q", kind="p"),
    Column("n_patients", "patients", "count"), Column("n_missing", "missing", "count"),
    Column("smallest_effect", "could have seen"), Column("note", kind="text"),
)  # fmt: skip
_DIFFERENCES = (
    Column("target", kind="text"), Column("region", kind="text"),
    Column("difference", "difference, points", "points", "low", "high"),
    Column("mean_a", "mean of the first", "share"), Column("mean_b", "mean of the second", "share"),
    Column("p", kind="p"), Column("q", kind="p"), Column("n_a", "patients, first", "count"),
    Column("n_b", "second", "count"), Column("note", kind="text"),
)  # fmt: skip
_COULD = (
    "“Could have seen”: the smallest effect that four of five cohorts of this size would show at "
    "p ≤ 0.05. A small p tells that two things go together in these patients, not that one is the "
    "cause: other columns may go with both."
)


def bias_blocks(summary: StudySummary) -> list[dict[str, Any]]:
    """Show tests of importance, and of being an outlier, against each column of metadata."""
    if summary.bias.empty and summary.outlier_bias.empty:
        return [words_block("", f"{summary.notes['bias']}.")]
    found = [words_block("", _COULD)]
    for title, rows in (
        ("Outliers and others", summary.outlier_bias),
        ("Importance", summary.bias),
    ):
        if len(rows):
            words = f"{counted(int(rows['p'].notna().sum()), 'test')}; q is over all of them."
            found.append(table_block(title, words, _by_q(rows), _BIAS))
    if summary.notes.get("bias"):
        found.append(words_block("", f"{summary.notes['bias']}."))
    return found


def comparison_blocks(
    pair: Comparison, order: Sequence[str] | None, extra_regions: Sequence[str]
) -> list[dict[str, Any]]:
    """Difference matrix and table of two models or cohorts."""
    rows = pair.frame
    if rows.empty:
        return [words_block("", "They have no target in common.")]
    drawing = difference_matrix(
        rows, pair.labels, order=order, extra_regions=extra_regions, level=pair.alpha
    )
    design = {
        "paired": "Patient by patient, on the cases that both have",
        "unpaired": "Different patients on each side",
    }[str(rows["design"].iloc[0])]
    words = (
        f"{design}. p by permutation, q over all {int(rows['p'].notna().sum())} tests; intervals: "
        "patients drawn anew."
    )
    return [
        figure_block("", words, drawing),
        table_block("Differences", "", _by_q(rows), _DIFFERENCES),
    ]


def _by_q(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["q", "p"], kind="stable")
