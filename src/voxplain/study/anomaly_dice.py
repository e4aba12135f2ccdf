"""Do anomaly scores tell of bad segmentations: scores against Dice, over patients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError
from voxplain.records.lesion_tables import check_columns
from voxplain.study.anomaly_intervals import auroc_interval, spearman_interval
from voxplain.study.anomaly_rows import ALL_TARGETS, ANOMALIES
from voxplain.study.bootstrap import check_level
from voxplain.study.false_discovery import adjusted

AGAINST_DICE = (
    "target", "n", "n_patients", "rho", "low", "high", "interval", "level", "p", "q", "note",
)  # fmt: skip
"""One row a class that is a target, and one of `ALL_TARGETS` with the mean Dice. rho: Spearman's
correlation of score and Dice, one mean a patient. interval: ``bootstrap`` or ``asymptotic``. q:
corrected over the rows."""

DETECTION = (
    "target", "threshold", "n_low", "n_rest", "n_patients", "auroc", "low", "high", "interval",
    "level", "note",
)  # fmt: skip
"""One row a class that is a target, and one of `ALL_TARGETS` with the mean Dice. n_low: cases with
a Dice below the threshold, which a high score is to find; n_rest: the others. Cases without a score
are in neither; note: how many of them have a Dice of 0."""

EXTREMES = ("end", "rank", *ANOMALIES)
"""Rows of `ANOMALIES`. end: ``top`` (strangest) or ``bottom``; rank: from 1 at that end."""

LEAST_PATIENTS = 4
"""Fewer have no test: of three patients, every order is one of six."""

Floats = NDArray[np.float64]

FEW = 10
"""Cases on one side, below which it is noted that they are few."""


def anomaly_against_dice(
    scores: pd.DataFrame,
    dice: pd.DataFrame,
    patients: Sequence[str],
    *,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate scores with agreement with the true labels.

    Parameters
    ----------
    scores
        Columns `ANOMALIES`.
    dice
        Index case, a column a class; a target of that name is about it.
    patients
        Whose each case of `dice` is.
    n_boot, seed
        Draws of patients behind intervals; see `voxplain.study.anomaly_intervals`.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `AGAINST_DICE`. A detector that finds bad cases has a negative rho. p: two-sided,
        by Student's distribution.

    Raises
    ------
    LabelError
        If `scores` has other columns.
    DataError
        If `patients` are more or fewer than the cases, or `n_boot` or `level` is out of its range.
    """
    from scipy import stats

    check_level(level)
    rows: list[dict[str, Any]] = []
    for target, pairs, _ in _pairs(scores, dice, patients):
        means = pairs.groupby("patient", sort=True)[["score", "dice"]].mean()
        a, b = means["score"].to_numpy(float), means["dice"].to_numpy(float)
        row: dict[str, Any] = {
            "target": target, "n": len(pairs), "n_patients": len(means), "level": level,
            "rho": np.nan, "low": np.nan, "high": np.nan, "interval": "", "p": np.nan, "note": "",
        }  # fmt: skip
        if len(means) < LEAST_PATIENTS:
            row["note"] = f"not computed: {len(means)} patients, {LEAST_PATIENTS} are needed"
        elif not np.ptp(a) or not np.ptp(b):
            row["note"] = f"not computed: all {'Dice' if np.ptp(a) else 'scores'} are equal"
        else:
            found = stats.spearmanr(a, b)
            row["rho"], row["p"] = float(found.statistic), float(found.pvalue)
            row["low"], row["high"], row["interval"] = spearman_interval(
                a, b, row["rho"], n_boot=n_boot, level=level, seed=seed
            )
        rows.append(row)
    frame = pd.DataFrame(rows, columns=list(AGAINST_DICE))
    frame["q"] = adjusted(frame["p"].to_numpy(float))
    return frame


def low_dice_detection(
    scores: pd.DataFrame,
    dice: pd.DataFrame,
    patients: Sequence[str],
    *,
    threshold: float | None = None,
    n_boot: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Measure how well scores find the cases with a low Dice.

    Parameters
    ----------
    scores, dice, patients, n_boot, level, seed
        As in `anomaly_against_dice`.
    threshold
        Cases with a Dice below it are to be found. None: the lower quartile of the Dice of each
        class (of the mean Dice for `ALL_TARGETS`) over these cases, or where the lower quartile
        is their least Dice, e.g. 0 where a quarter fails, the next larger one; ``threshold``
        tells it.

    Returns
    -------
    pandas.DataFrame
        Columns `DETECTION`. auroc: chance that a case with a low Dice has a higher score than
        another one; ties count half.

    Raises
    ------
    LabelError
        If `scores` has other columns.
    DataError
        If `patients` are more or fewer than the cases, or `threshold`, `n_boot` or `level` is out
        of its range.
    """
    from sklearn.metrics import roc_auc_score

    check_level(level)
    if threshold is not None and not 0 < threshold <= 1:
        raise DataError(f"threshold of Dice is above 0 and at most 1, got {threshold}")
    rows: list[dict[str, Any]] = []
    for target, pairs, n_missed in _pairs(scores, dice, patients):
        value = pairs["dice"].to_numpy(float)
        cut = _lower_quartile(value) if threshold is None else threshold
        is_low = value < cut
        sides = [pairs.loc[side, "patient"].nunique() for side in (is_low, ~is_low)]
        n_low, n_rest = int(is_low.sum()), int((~is_low).sum())
        row = {
            "target": target, "threshold": cut, "n_low": n_low, "n_rest": n_rest,
            "n_patients": pairs["patient"].nunique(), "auroc": np.nan, "low": np.nan,
            "high": np.nan, "interval": "", "level": level, "note": "",
        }  # fmt: skip
        if min(sides) < 2:
            row["note"] = (
                f"not computed: {sides[0]} patients with a Dice below the threshold and "
                f"{sides[1]} without, 2 of each are needed"
            )
        else:
            score = pairs["score"].to_numpy(float)
            row["auroc"] = float(roc_auc_score(is_low, score))
            row["low"], row["high"], row["interval"] = auroc_interval(
                score, is_low, pairs["patient"].tolist(), n_boot=n_boot, level=level, seed=seed
            )
            if min(n_low, n_rest) < FEW:
                row["note"] = f"few: {min(n_low, n_rest)} cases on one side"
        if n_missed:
            told = f"{n_missed} cases of Dice 0 have no score (class missed entirely): not counted"
            row["note"] = f"{row['note']}; {told}" if row["note"] else told
        rows.append(row)
    return pd.DataFrame(rows, columns=list(DETECTION))


def extremes(
    scores: pd.DataFrame,
    n: int = 3,
    *,
    target: str = ALL_TARGETS,
    patients: pd.Series | None = None,
) -> pd.DataFrame:
    """List the strangest and the most ordinary cases.

    Parameters
    ----------
    scores
        Columns `ANOMALIES`.
    n
        Of each end; no case is at both.
    target
        Whose rows.
    patients
        Index case: whose each is; a patient is then listed once, by the strangest case. None:
        cases are listed, also several of one patient.

    Returns
    -------
    pandas.DataFrame
        Columns `EXTREMES`; the top first. Equal scores are in the order of case names. With fewer
        than 2·n scored cases the bottom is what the top leaves.

    Raises
    ------
    LabelError
        If `scores` has other columns.
    DataError
        If `n` is below 1.
    """
    check_columns(scores, ANOMALIES, "scores")
    if n < 1:
        raise DataError(f"n, the cases at each end, is at least 1, got {n}")
    own = scores[(scores["target"] == target) & scores["score"].notna()]
    own = own.sort_values(["score", "case"], ascending=[False, True])
    if patients is not None:
        own = own[~own["case"].map(patients).duplicated()]
    top = own.head(n)
    bottom = own.iloc[len(top) :].tail(n).iloc[::-1]
    ends = [
        part.assign(end=end, rank=range(1, len(part) + 1))
        for end, part in (("top", top), ("bottom", bottom))
    ]
    return pd.concat(ends, ignore_index=True)[[*EXTREMES]]


def _pairs(
    scores: pd.DataFrame, dice: pd.DataFrame, patients: Sequence[str]
) -> Iterator[tuple[str, pd.DataFrame, int]]:
    """Target; patient, score and Dice where both are known; how many of Dice 0 have no score."""
    check_columns(scores, ANOMALIES, "scores")
    if not len(dice.columns):
        return
    if len(patients) != len(dice):
        raise DataError(f"{len(dice)} cases have a Dice and {len(patients)} a patient: give both")
    named = set(scores["target"].unique())
    classes = [name for name in dice.columns if name in named]
    if not classes:
        return
    known = dice[classes].astype(float)
    for target, value in [*known.items(), (ALL_TARGETS, known.mean(axis=1))]:
        own = scores[scores["target"] == target].set_index("case")["score"]
        pairs = pd.DataFrame({"score": own.reindex(dice.index), "dice": value})
        n_missed = int((pairs["score"].isna() & (pairs["dice"] == 0)).sum())
        pairs = pairs.assign(patient=np.asarray(patients, str)).dropna()
        yield str(target), pairs.sort_index(), n_missed


def _lower_quartile(dice: Floats) -> float:
    """Lower quartile, or the next larger Dice where no case lies below it; NaN without cases."""
    if not len(dice):
        return float("nan")
    cut = float(np.quantile(dice, 0.25))
    larger = dice[dice > cut]
    return cut if (dice < cut).any() or not len(larger) else float(larger.min())
