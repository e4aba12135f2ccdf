"""Verdicts on explanations, from the tables of an assessment: codes VX201 to VX212."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pandas as pd

from voxplain.assess.checks_subject import Subject, Verdict
from voxplain.assess.checks_thresholds import DEFAULTS, Thresholds
from voxplain.assess.checks_verdicts import CHECKS
from voxplain.errors import MethodError
from voxplain.records.assessment import BASELINE, COMPARISONS, SCORES, SUMMARY
from voxplain.records.finding import CODES, Finding, finding
from voxplain.records.lesion_tables import check_columns
from voxplain.records.metric import Metric
from voxplain.study.score_summary import Draws

IGNORED: Verdict = ("ignored", "you asked not to be told")


def checks_of(
    scores: pd.DataFrame,
    summary: pd.DataFrame,
    comparisons: pd.DataFrame,
    metrics: Sequence[Metric],
    *,
    groups: Collection[str] = (),
    ignore: Collection[str] = (),
    thresholds: Thresholds = DEFAULTS,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[Finding, ...]:
    """Draw every verdict for every model and method.

    Parameters
    ----------
    scores
        Columns `voxplain.records.assessment.SCORES`.
    summary
        Of these scores, from `voxplain.study.score_summary.summary_of`.
    comparisons
        Of these scores, from `voxplain.study.score_comparison.comparisons_of`.
    metrics
        Meaning of the metrics; their direction is read.
    groups
        Groups of metrics that were asked for: what was not computed is then told with its reason,
        else with the group to ask for.
    ignore
        Codes not to be told.
    thresholds
        Where lines are drawn.
    n_boot, level, seed
        Of the intervals of differences (VX201, VX212); the others are those of the tables.

    Returns
    -------
    tuple of Finding
        Twelve for each model and method that is no baseline, in the order of models, methods and
        codes; target ``MODEL · METHOD``.

    Raises
    ------
    MethodError
        If `ignore` holds an unknown code.
    LabelError
        If a column is missing.
    DataError
        If `n_boot` or `level` is out of its range.

    Notes
    -----
    A verdict is over all targets together: first the mean over a case's targets. Where an
    assessment asks several questions of many methods some verdict is wrong by chance: intervals
    are not corrected for the number of methods.
    """
    for table, columns, name in (
        (scores, SCORES, "scores"),
        (summary, SUMMARY, "summary"),
        (comparisons, COMPARISONS, "comparisons"),
    ):
        check_columns(table, columns, name)
    unknown = sorted(set(ignore) - CODES.keys())
    if unknown:
        raise MethodError(
            f"cannot ignore {', '.join(unknown)}: no such code; codes are {', '.join(CODES)}"
        )
    draws = Draws(n_boot, seed, level)
    pairs = scores[["model", "method"]].drop_duplicates().sort_values(["model", "method"])
    found = []
    for model, method in pairs.itertuples(index=False, name=None):
        if not method or method.startswith(BASELINE):
            continue
        subject = Subject(
            model, method, scores, summary, comparisons, metrics, thresholds, draws, groups
        )  # fmt: skip
        for code, check in CHECKS.items():
            verdict = IGNORED if code in ignore else check(subject)
            found.append(finding(code, *verdict, f"{model} · {method}"))
    return tuple(found)
