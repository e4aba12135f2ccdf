"""Scores of explanations over cases: mean, spread and an interval by patients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.records.assessment import (
    ALL_TARGETS,
    REPEAT,
    REPRODUCE,
    SCORES,
    SUMMARY,
    frame_of,
)
from voxplain.records.lesion_tables import check_columns
from voxplain.study.bootstrap import PatientDraws, check_level, interval

GROUP = ["model", "stage", "method", "metric"]


class Draws:
    """Draws of patients for many statistics; those of the same patients are drawn once.

    Parameters
    ----------
    n_boot, seed
        See `voxplain.study.bootstrap.PatientDraws`.
    level
        Of the intervals.

    Raises
    ------
    DataError
        If `n_boot` or `level` is out of its range.
    """

    def __init__(self, n_boot: int, seed: int, level: float) -> None:
        check_level(level)
        PatientDraws(["any"], n_boot, seed)  # refuses its settings also where no row is left
        self._n_boot, self._seed, self._level = n_boot, seed, level
        self._made: dict[tuple[str, ...], PatientDraws] = {}

    def mean_interval(
        self, values: NDArray[np.float64], patients: Sequence[str]
    ) -> tuple[float, float]:
        """Return the interval of a mean; NaN, NaN with fewer than two patients.

        Parameters
        ----------
        values
            (n,) finite.
        patients
            (n,) whose each is.
        """
        names, owner = np.unique(np.asarray(patients, str), return_inverse=True)
        if len(names) < 2:
            return np.nan, np.nan
        key = tuple(names.tolist())
        if key not in self._made:
            self._made[key] = PatientDraws(key, self._n_boot, self._seed)
        return interval(self._made[key].means(values, owner), len(names), self._level)


def summary_of(
    scores: pd.DataFrame, *, n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Summarise scores per model, stage, method, metric and target.

    Parameters
    ----------
    scores
        Columns `voxplain.records.assessment.SCORES`.
    n_boot, seed
        Draws of whole patients behind the intervals.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `voxplain.records.assessment.SUMMARY`, sorted. A case has one value: the mean over
        its seeds and over what it was compared with (``against``); with the target `ALL_TARGETS`
        then the mean over its targets. Two models compared count for both. n: cases with a value;
        n_patients: whose they are; n_undefined: scores that are NaN, which no mean counts. sd: of
        the cases, divided by n − 1. low, high: of the mean, see
        `voxplain.study.bootstrap.interval`.

    Raises
    ------
    LabelError
        If a column is missing.
    DataError
        If `n_boot` or `level` is out of its range.
    """
    check_columns(scores, SCORES, "scores")
    draws = Draws(n_boot, seed, level)
    between = scores[scores["stage"].isin([REPEAT, REPRODUCE])]
    turned = between.assign(model=between["against"], against=between["model"])
    targets = case_values(pd.concat([scores, turned], ignore_index=True))
    both = pd.concat([targets, case_means(targets)], ignore_index=True)
    rows = []
    for key, part in both.groupby([*GROUP, "target"], sort=True):
        known = part[part["value"].notna()]
        values = known["value"].to_numpy(float)
        n = len(values)
        low, high = draws.mean_interval(values, known["patient"].tolist())
        rows.append(
            {
                **dict(zip([*GROUP, "target"], key, strict=True)),
                "n": n, "n_patients": known["patient"].nunique(),
                "n_undefined": int(part["n_undefined"].sum()),
                "mean": values.mean() if n else np.nan,
                "sd": values.std(ddof=1) if n > 1 else np.nan,
                "median": np.median(values) if n else np.nan, "low": low, "high": high,
            }
        )  # fmt: skip
    return frame_of(rows, SUMMARY)


def case_values(scores: pd.DataFrame) -> pd.DataFrame:
    """Reduce scores to one value a case and target: the mean over seeds and comparisons.

    Parameters
    ----------
    scores
        Columns `voxplain.records.assessment.SCORES`. A case without a patient is one of its own.

    Returns
    -------
    pandas.DataFrame
        Columns model, stage, method, metric, target, case, patient, value (NaN if all are),
        n_undefined.
    """
    values = scores["value"].astype(float)
    patient = scores["patient"].astype("string").fillna("")
    patient = patient.where(patient != "", "case " + scores["case"].astype("string"))
    frame = scores.assign(value=values, patient=patient.astype(str), n_undefined=values.isna())
    return _means(frame, [*GROUP, "target", "case", "patient"])


def case_means(values: pd.DataFrame) -> pd.DataFrame:
    """Reduce to one value a case: the mean over its targets, under the name `ALL_TARGETS`.

    Parameters
    ----------
    values
        From `case_values`.
    """
    found = _means(values, [*GROUP, "case", "patient"])
    return found.assign(target=ALL_TARGETS)


def _means(frame: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    grouped = frame.groupby(by, sort=True, as_index=False)
    return grouped.agg(value=("value", "mean"), n_undefined=("n_undefined", "sum"))
