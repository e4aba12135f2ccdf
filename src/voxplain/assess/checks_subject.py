"""What the tables tell of one model and method."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from voxplain.assess.checks_thresholds import Thresholds
from voxplain.assess.map_peak import METRIC as PEAK
from voxplain.assess.metrics import GROUPS_OF
from voxplain.records.assessment import ALL_TARGETS, BASELINE, ORIGINAL, RANDOM_PAIRS
from voxplain.records.finding import Outcome
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, Metric
from voxplain.study.score_comparison import paired
from voxplain.study.score_summary import Draws, case_values

MAP_PEAK = PEAK.name

Verdict = tuple[Outcome, str]


@dataclass(frozen=True)
class Mean:
    """A mean over cases with its interval.

    Parameters
    ----------
    value, low, high
        Mean and interval; NaN where there is none.
    n, n_patients
        Cases and patients behind it.
    n_undefined
        Scores that had no value.
    """

    value: float
    low: float
    high: float
    n: int
    n_patients: int
    n_undefined: int = 0

    def __str__(self) -> str:
        span = f"{self.low:.3g} to {self.high:.3g}" if np.isfinite(self.low) else "no interval"
        text = f"{self.value:.3g} ({span})"
        text += f", n = {self.n} cases of {self.n_patients} patients"
        return text + (f", {self.n_undefined} scores undefined" if self.n_undefined else "")


@dataclass(frozen=True, eq=False)
class Subject:
    """One model and method in the tables of an assessment.

    Parameters
    ----------
    model, method
        As in the tables.
    scores, summary, comparisons, metrics
        Of the whole assessment.
    limits
        Of the checks.
    draws
        For intervals of differences.
    groups
        Groups of metrics that were asked for.
    """

    model: str
    method: str
    scores: pd.DataFrame
    summary: pd.DataFrame
    comparisons: pd.DataFrame
    metrics: Sequence[Metric]
    limits: Thresholds
    draws: Draws
    groups: Collection[str] = ()

    def mean(self, metric: str) -> Mean | None:
        """Return the mean over all cases and targets of the original maps; None: not computed."""
        rows = self._own(self.summary)
        rows = rows[(rows["stage"] == ORIGINAL) & (rows["metric"] == metric)]
        rows = rows[rows["target"] == ALL_TARGETS]
        if not len(rows):
            return None
        row = rows.iloc[0]
        return Mean(
            float(row["mean"]), float(row["low"]), float(row["high"]), int(row["n"]),
            int(row["n_patients"]), int(row["n_undefined"]),
        )  # fmt: skip

    def missing(self, *metrics: str) -> str:
        """Tell which group to ask for to get metrics; nothing if one was asked for already."""
        wanted = list(dict.fromkeys(group for one in metrics for group in GROUPS_OF.get(one, ())))
        if not wanted or set(wanted) & set(self.groups):
            return ""
        return f"; add {' or '.join(wanted)} to --metrics"

    def undefined(self, metric: str) -> str:
        """Tell why a metric has no value at all: its flags, and how many scores there are."""
        rows = self._own(self.scores)
        rows = rows[(rows["stage"] == ORIGINAL) & (rows["metric"] == metric)]
        flags = sorted({one for text in _flags(rows) for one in text.split("; ") if one})
        reason = ", ".join(flags) or "the metric does not apply"
        return f"{metric} has no value in any of {len(rows)} scores: {reason}"

    def last_step(self) -> str | None:
        """Return the last stage of the cascade that is judged; None: there is none."""
        pattern = re.compile(re.escape(self.limits.order) + r":(\d+)")
        found = [pattern.fullmatch(stage) for stage in self._own(self.scores)["stage"].unique()]
        steps = [int(match[1]) for match in found if match]
        return f"{self.limits.order}:{max(steps)}" if any(steps) else None

    def rows(self, stage: str) -> pd.DataFrame:
        """Scores of the deciding similarity at a stage.

        Rows that compare two models belong to both; those that compare two cases too.
        """
        rows = self.scores[
            (self.scores["method"] == self.method)
            & (self.scores["stage"] == stage)
            & (self.scores["metric"] == self.limits.similarity)
        ]
        own = rows[(rows["model"] == self.model) | (rows["against"] == self.model)]
        own = own.assign(model=self.model)
        if stage != RANDOM_PAIRS:
            return own
        patients = dict(zip(self.scores["case"], self.scores["patient"], strict=True))
        other = own[own["against"].isin(patients.keys())]
        swapped = other.assign(case=other["against"], patient=other["against"].map(patients))
        return pd.concat([own, swapped], ignore_index=True)

    def less_random_pairs(self, stage: str) -> tuple[float, Mean]:
        """Return the mean similarity of random pairs, and how far a stage is above it.

        Differences are paired by case and target: similarity at the stage less the mean over the
        pairs that the case is in.
        """
        pairs = paired(*(case_values(self.rows(name)) for name in (stage, RANDOM_PAIRS)))
        values, patients = pairs["value"].to_numpy(float), pairs["patient"].tolist()
        low, high = self.draws.mean_interval(values, patients)
        value = float(values.mean()) if len(values) else np.nan
        random = float(self.rows(RANDOM_PAIRS)["value"].astype(float).mean())
        return random, Mean(value, low, high, len(values), len(set(patients)))

    def rivals(self, metric: str) -> pd.DataFrame:
        """Rows of the comparisons with trivial maps in a metric."""
        rows = self._own(self.comparisons)
        high = tuple(BASELINE + name for name in self.limits.high_baselines)
        is_trivial = np.array([not str(rival).startswith(high) for rival in rows["rival"]], bool)
        return rows[(rows["metric"] == metric) & is_trivial]

    def maps(self) -> tuple[int, int]:
        """Count the original maps, and those without any value or with one value everywhere."""
        rows = self._own(self.scores)
        rows = rows[(rows["stage"] == ORIGINAL) & (rows["metric"] == MAP_PEAK)]
        dead = [bool({EMPTY_MAP, CONSTANT_MAP} & set(text.split("; "))) for text in _flags(rows)]
        found = rows.assign(dead=dead).groupby(["case", "target"])["dead"].any()
        return len(found), int(found.sum())

    def n_patients(self) -> int:
        """Count the patients whose maps were scored."""
        return int(case_values(self._own(self.scores))["patient"].nunique())

    def _own(self, table: pd.DataFrame) -> pd.DataFrame:
        return table[(table["model"] == self.model) & (table["method"] == self.method)]


def _flags(rows: pd.DataFrame) -> list[str]:
    return [str(text) for text in rows["flags"].fillna("")]
