"""Is an explanation better than a trivial map: paired differences, tests and effects."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats

from voxplain.records.assessment import BASELINE, COMPARISONS, ORIGINAL, SCORES, frame_of
from voxplain.records.lesion_tables import check_columns
from voxplain.records.metric import Metric
from voxplain.study.lesion_tests import holm
from voxplain.study.score_summary import Draws, case_values

FAMILIES = ("utility", "faithfulness")
LEAST_PATIENTS = 6
"""Fewer pairs cannot reach p < 0.05 whatever they say: 2 · ½⁵ = 0.0625."""

Floats = NDArray[np.float64]


def comparisons_of(
    scores: pd.DataFrame,
    metrics: Sequence[Metric],
    *,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Compare every method with every trivial map, per model and metric.

    Parameters
    ----------
    scores
        Columns `voxplain.records.assessment.SCORES`; rows of the stage ``original`` count.
    metrics
        Those of the families utility and faithfulness that have a direction are compared.
    n_boot, seed
        Draws of whole patients behind the intervals.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `COMPARISONS`. Pairs are made by case and target; a case's difference is the mean
        over the targets that both have, so n is a number of cases. difference: method less rival,
        mean over cases, in the metric's unit (for a metric whose direction is lower, below 0
        is better). p: two-sided Wilcoxon signed-rank test. p_holm: corrected over the rows of
        one model and metric. effect: see `rank_biserial`, of the same pairs as p.

    Raises
    ------
    LabelError
        If a column is missing.
    DataError
        If `n_boot` or `level` is out of its range.

    Notes
    -----
    The test and the effect take one pair a patient, the mean over the patient's cases, because
    cases of one patient are not independent; with one case a patient that is n pairs.
    """
    check_columns(scores, SCORES, "scores")
    draws = Draws(n_boot, seed, level)
    names = [m.name for m in metrics if m.family in FAMILIES and m.direction != "none"]
    wanted = scores[(scores["stage"] == ORIGINAL) & scores["metric"].isin(names)]
    rows = []
    for (model, metric), part in case_values(wanted).groupby(["model", "metric"], sort=True):
        methods = {str(name): one for name, one in part.groupby("method", sort=True)}
        rivals = [name for name in methods if name.startswith(BASELINE)]
        for method in sorted(methods.keys() - set(rivals)):
            rows += [
                {
                    "model": model, "method": method, "rival": rival, "metric": metric,
                    **_compared(paired(methods[method], methods[rival]), draws),
                }
                for rival in rivals
            ]  # fmt: skip
    found = frame_of(rows, COMPARISONS)
    for _, family in found.groupby(["model", "metric"], sort=False):
        found.loc[family.index, "p_holm"] = holm(family["p"].to_numpy(float))
    return found


def paired(a: pd.DataFrame, b: pd.DataFrame) -> pd.DataFrame:
    """Take differences a − b by case and target, then their mean over a case's targets.

    Parameters
    ----------
    a, b
        One value a case and target, as from `voxplain.study.score_summary.case_values`.

    Returns
    -------
    pandas.DataFrame
        Columns case, patient, value; cases for which both are known.
    """
    key = ["case", "patient", "target"]
    gained = (a.set_index(key)["value"] - b.set_index(key)["value"]).dropna()  # aligned
    return gained.groupby(level=["case", "patient"], sort=True).mean().reset_index()


def rank_biserial(differences: Floats) -> float:
    """Return the matched-pairs rank-biserial correlation (R₊ − R₋) / (R₊ + R₋).

    R₊ and R₋ are the sums of the ranks of |d| over positive and negative differences, ties sharing
    their mean rank; differences of zero are left out.

    Parameters
    ----------
    differences
        (n,) finite.

    Returns
    -------
    float
        −1 to 1; 0 if all differences are zero, NaN if there is none.

    References
    ----------
    Kerby, The simple difference formula, Comprehensive Psychology 3 (2014).
    """
    if not len(differences):
        return np.nan
    moved = differences[differences != 0]
    if not len(moved):
        return 0.0
    ranks = stats.rankdata(np.abs(moved))
    return float((ranks * np.sign(moved)).sum() / ranks.sum())


def _compared(pairs: pd.DataFrame, draws: Draws) -> dict[str, object]:
    values = pairs["value"].to_numpy(float)
    patients = pairs.groupby("patient")["value"].mean().to_numpy(float)
    low, high = draws.mean_interval(values, pairs["patient"].tolist())
    p, note = np.nan, ""
    if len(patients) < LEAST_PATIENTS:
        note = f"no test: fewer than {LEAST_PATIENTS} patients"
    elif not patients.any():
        p, note = 1.0, "all values are equal"
    else:
        p = float(stats.wilcoxon(patients).pvalue)
    return {
        "n": len(values), "n_patients": len(patients),
        "difference": values.mean() if len(values) else np.nan, "low": low, "high": high, "p": p,
        "p_holm": np.nan, "effect": rank_biserial(patients), "note": note,
    }  # fmt: skip
