"""Scores of cases and targets, and the table that they make."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.records.cohort_table import CohortTable
from voxplain.study.anomaly_cases import Shares
from voxplain.study.anomaly_settings import AnomalySettings
from voxplain.study.false_discovery import adjusted

ANOMALIES = (
    "case", "target", "detector", "features", "score", "p", "p_tail", "q", "is_outlier",
    "mean_score", "note",
)  # fmt: skip
"""One row a case and target, and one a case for `ALL_TARGETS`. score: higher is stranger; see
`voxplain.study.anomaly_detectors.Detector.score`. p: conformal. p_tail: p, and beyond the
largest scores of others by their tail. q: p_tail corrected, over all cases and targets together,
and over the cases of `ALL_TARGETS` by themselves. is_outlier: called one; False where there is no
score. mean_score: mean over targets, of `ALL_TARGETS` only. note: why a number is missing, or what
is special."""

ALL_TARGETS = "all targets"
"""Target of rows about a case as a whole."""

ABSENT = "no map: the class is not in this case"
INCOMPLETE = "not scored: shares of regions are missing, and the others do not sum to 1"

Floats = NDArray[np.float64]


class AnomalyRows:
    """Numbers of cases by target, as they are found.

    Parameters
    ----------
    settings
        How they are found.
    targets
        In their order, without `ALL_TARGETS`.
    n
        Cases.
    """

    def __init__(self, settings: AnomalySettings, targets: Sequence[str], n: int) -> None:
        self.settings = settings
        self.targets = tuple(targets)
        names = (*self.targets, ALL_TARGETS)
        self.score, self.p, self.p_tail = (
            {name: np.full(n, np.nan) for name in names} for _ in range(3)
        )
        self._mean = np.full(n, np.nan)
        self._texts = [""]
        self._notes = {name: np.zeros(n, np.int32) for name in names}

    def say(self, target: str, text: str, at: NDArray[np.intp] | None = None) -> None:
        """Note a text of some cases, or all, that have none yet."""
        if not text:
            return
        if text not in self._texts:
            self._texts.append(text)
        notes = self._notes[target]
        places = np.arange(len(notes)) if at is None else at
        free = places[notes[places] == 0]
        notes[free] = self._texts.index(text)

    def say_state(self, target: str, shares: Shares) -> None:
        """Note why cases cannot be scored."""
        self.say(target, ABSENT, np.flatnonzero(shares.is_absent))
        self.say(target, INCOMPLETE, np.flatnonzero(shares.is_incomplete))

    def compared(self, target: str, at: NDArray[np.intp], p: Floats, p_tail: Floats) -> None:
        """Take the p-values of some cases."""
        self.p[target][at] = p
        self.p_tail[target][at] = p if self.settings.tail == "none" else p_tail

    def combine(self) -> None:
        """Find the score over all targets, and the mean score."""
        self._mean = _mean([self.score[target] for target in self.targets], len(self._mean))
        self.score[ALL_TARGETS] = (
            self._mean
            if self.settings.rule == "predict"
            else _mean([-np.log10(self.p_tail[t]) for t in self.targets], len(self._mean))
        )

    @property
    def has_none(self) -> NDArray[np.bool_]:
        """(n,) cases without a score of any target."""
        found: NDArray[np.bool_] = np.isnan(self._mean)
        return found

    def frame(self, table: CohortTable) -> pd.DataFrame:
        """Tabulate under `ANOMALIES`; all cases of a target, in the table's order."""
        names = (*self.targets, ALL_TARGETS)
        n = len(table)
        # each target by itself would call an outlier in nearly every cohort of many targets
        single = np.concatenate([np.empty(0), *(self.p_tail[name] for name in self.targets)])
        q = np.concatenate([adjusted(single), adjusted(self.p_tail[ALL_TARGETS])])
        score = np.concatenate([self.score[name] for name in names])
        called = q <= self.settings.level
        if self.settings.rule == "predict":
            called = score > 0
        codes = np.repeat(np.arange(len(names)), n)
        one = np.zeros(len(codes), np.int8)
        columns = {
            "case": table.cases.index.take(np.tile(np.arange(n), len(names))),
            "target": pd.Categorical.from_codes(codes, pd.Index(names)),
            "detector": pd.Categorical.from_codes(one, pd.Index([str(self.settings.detector)])),
            "features": pd.Categorical.from_codes(one, pd.Index([str(self.settings.features)])),
            "score": score,
            "p": np.concatenate([self.p[name] for name in names]),
            "p_tail": np.concatenate([self.p_tail[name] for name in names]),
            "q": q,
            "is_outlier": called,
            "mean_score": np.concatenate([np.full(n * len(self.targets), np.nan), self._mean]),
            "note": pd.Categorical.from_codes(
                np.concatenate([self._notes[name] for name in names]), pd.Index(self._texts)
            ),
        }
        return pd.DataFrame(columns)[[*ANOMALIES]]


def _mean(rows: Sequence[NDArray[np.float64]], n: int) -> Floats:
    """Mean over targets of what is known; NaN where nothing is."""
    total, count = np.zeros(n), np.zeros(n)
    for row in rows:
        known = np.isfinite(row)
        total[known] += row[known]
        count += known
    found = np.full(n, np.nan)
    np.divide(total, count, out=found, where=count > 0)
    return found
