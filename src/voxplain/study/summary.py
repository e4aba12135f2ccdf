"""Everything a report says about one model and one method over a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import MethodError
from voxplain.records.cohort_table import CohortTable
from voxplain.study.anomalies import (
    ALL_TARGETS,
    Anomalies,
    fit_anomalies,
    held_out_detectors,
    score_within,
)
from voxplain.study.anomaly_dice import (
    AGAINST_DICE,
    DETECTION,
    anomaly_against_dice,
    low_dice_detection,
)
from voxplain.study.anomaly_dice import extremes as find_extremes
from voxplain.study.anomaly_drivers import drivers
from voxplain.study.anomaly_settings import AnomalySettings
from voxplain.study.bias import BIAS, BiasPreset, bias_table, importance_features, outlier_bias
from voxplain.study.bootstrap import check_level
from voxplain.study.false_discovery import adjusted
from voxplain.study.importance import contextual, global_importance
from voxplain.study.local_importance import local_against_global
from voxplain.study.patient_values import PatientMeans

_N_LOCAL = 3
_LARGE = 5000  # cases; with more, comparing one case with all of them takes seconds


@dataclass(frozen=True)
class SummarySettings:
    """How a cohort is summarised.

    Parameters
    ----------
    level
        Of every interval, e.g. 0.95.
    alpha
        Findings are told where q is at most this.
    n_boot
        Draws of patients behind an interval.
    n_extremes
        Strangest and most ordinary cases that are shown one by one.
    min_group
        Patients a group of a metadata column needs to be tested.
    seed
        Of all draws.
    anomalies
        Detector and features.
    bias_preset
        Tests of `voxplain.study.bias.outlier_bias`; ``agg2exp`` adds those of that paper.

    Raises
    ------
    MethodError
        If a number is out of range, or there is no such preset.
    DataError
        If `level` is.
    """

    level: float = 0.95
    alpha: float = 0.05
    n_boot: int = 1000
    n_extremes: int = 3
    min_group: int = 5
    seed: int = 0
    anomalies: AnomalySettings = field(default_factory=AnomalySettings)
    bias_preset: BiasPreset = "voxplain"

    def __post_init__(self) -> None:
        check_level(self.level)
        if not 0 < self.alpha < 1:
            raise MethodError(f"alpha is between 0 and 1, e.g. 0.05; got {self.alpha}")
        for name, least in (("n_boot", 1), ("n_extremes", 0), ("min_group", 2)):
            if getattr(self, name) < least:
                raise MethodError(f"{name} is at least {least}, got {getattr(self, name)}")
        if self.bias_preset not in get_args(BiasPreset):
            raise MethodError(
                f"bias_preset is one of {', '.join(get_args(BiasPreset))}, got {self.bias_preset!r}"
            )


@dataclass(frozen=True, eq=False)
class StudySummary:
    """What one model and one method show over a cohort.

    Parameters
    ----------
    table
        The cohort.
    settings
        How it was summarised.
    importance
        Columns `voxplain.study.importance.IMPORTANCE`.
    signed
        By ``positive`` and ``negative``: targets × regions, mean over patients, each the mean
        over its cases; empty if they were not loaded.
    contextual
        Columns `voxplain.study.importance.CONTEXTUAL`.
    scores
        Columns `voxplain.study.anomalies.ANOMALIES`; empty if none could be fitted.
    extremes
        Names of the strangest cases, strangest first, and of the most ordinary ones, the lowest
        score first; one case a patient.
    drivers, driver_targets
        By strangest case: see `voxplain.study.anomaly_drivers.drivers`, and the target it is
        about, the one in which the case is strangest.
    local
        By the strangest cases: columns of `voxplain.study.local_importance`.
    against_dice, detection
        Anomaly scores against agreement with true labels; empty without any.
    bias, outlier_bias
        Columns `voxplain.study.bias.BIAS`; empty without metadata. q: over both together, and
        over those of other models and methods after `adjusted_summaries`.
    notes
        By what was left out (``anomalies``, ``dice``, ``bias``): why.
    has_reference
        Whether anomalies were fitted on another cohort.
    """

    table: CohortTable
    settings: SummarySettings
    importance: pd.DataFrame
    signed: Mapping[str, pd.DataFrame]
    contextual: pd.DataFrame
    scores: pd.DataFrame
    extremes: tuple[tuple[str, ...], tuple[str, ...]]
    drivers: Mapping[str, pd.DataFrame]
    driver_targets: Mapping[str, str]
    local: Mapping[str, pd.DataFrame]
    against_dice: pd.DataFrame
    detection: pd.DataFrame
    bias: pd.DataFrame
    outlier_bias: pd.DataFrame
    notes: Mapping[str, str]
    has_reference: bool = False

    @property
    def title(self) -> str:
        """Model and method."""
        return f"{self.table.model} · {self.table.method}"


@dataclass(frozen=True, eq=False)
class Comparison:
    """Two models, methods or cohorts.

    Parameters
    ----------
    labels
        Names of the two.
    of
        What they have in common, e.g. the method.
    frame
        Columns `voxplain.study.cohort_comparison.COMPARISON`.
    alpha
        Differences are told where q is at most this.
    n_tests
        That q is corrected over; None: those of `frame`.
    """

    labels: tuple[str, str]
    of: str
    frame: pd.DataFrame
    alpha: float = 0.05
    n_tests: int | None = None

    @property
    def least_q(self) -> float:
        """Smallest q that a single difference can have; NaN without a test.

        The least of p_least · n_tests over the tests, 1 at most. Above alpha, a difference can be
        found only together with others, so that finding none says little.
        """
        tests = self.frame[self.frame["p"].notna()]
        if tests.empty:
            return float("nan")
        return min(1.0, float(tests["p_least"].min()) * (self.n_tests or len(tests)))


def adjusted_summaries(summaries: Sequence[StudySummary]) -> list[StudySummary]:
    """Correct q of bias over all models and methods together.

    Parameters
    ----------
    summaries
        Of one report.

    Returns
    -------
    list of StudySummary
        With q of `bias` and `outlier_bias` over all their tests.
    """
    frames = [frame for one in summaries for frame in (one.bias, one.outlier_bias)]
    found = iter(_adjusted_together(frames))
    return [replace(one, bias=next(found), outlier_bias=next(found)) for one in summaries]


def adjusted_comparisons(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Correct q of differences over all comparisons together.

    Parameters
    ----------
    comparisons
        Of one report.

    Returns
    -------
    list of Comparison
        With q over all their tests, and how many those are.
    """
    frames = _adjusted_together([one.frame for one in comparisons])
    n_tests = sum(int(frame["p"].notna().sum()) for frame in frames)
    return [
        replace(one, frame=frame, n_tests=n_tests)
        for one, frame in zip(comparisons, frames, strict=True)
    ]


def _adjusted_together(frames: Sequence[pd.DataFrame]) -> list[pd.DataFrame]:
    p = [frame["p"].to_numpy(np.float64) for frame in frames]
    q = adjusted(np.concatenate([np.empty(0), *p]))
    parts = np.split(q, np.cumsum([len(one) for one in p], dtype=np.intp))[:-1]
    return [frame.assign(q=part) for frame, part in zip(frames, parts, strict=True)]


def summarise(
    table: CohortTable,
    settings: SummarySettings | None = None,
    *,
    reference: CohortTable | None = None,
) -> StudySummary:
    """Compute what a report says about one model and one method.

    Parameters
    ----------
    table
        With ``share``; ``positive`` and ``negative`` are told if they are there.
    settings
        None: the defaults.
    reference
        Cohort that anomalies are fitted on; None: the cohort itself, each case scored by a
        detector that has not seen its patient.

    Returns
    -------
    StudySummary
        What cannot be computed for want of cases, labels or metadata is empty, with a note.

    Raises
    ------
    LabelError
        If the table does not hold shares.

    Notes
    -----
    Memory: one value of the table three times over, and the scores.
    """
    settings = settings or SummarySettings()
    notes: dict[str, str] = {}
    draws: dict[str, Any] = {
        "n_boot": settings.n_boot, "level": settings.level, "seed": settings.seed
    }  # fmt: skip
    fitted = None if reference is None else fit_anomalies(reference, settings.anomalies)
    scores = score_within(table, settings.anomalies) if fitted is None else fitted.score(table)
    known = scores[(scores["target"] == ALL_TARGETS) & scores["score"].notna()]
    extremes: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    if known.empty:
        notes["anomalies"] = _first_note(scores, "no case could be scored")
        scores = scores.head(0)
    else:
        ends = find_extremes(scores, settings.n_extremes, patients=table.cases["patient"])
        top, bottom = (ends.loc[ends["end"] == end, "case"] for end in ("top", "bottom"))
        extremes = (*map(str, top),), (*map(str, bottom),)
    against, detection = _dice(table, scores, settings, notes)
    bias, outliers = _bias(table, scores, settings, notes)
    targets = {case: _strangest(scores, case) for case in extremes[0]}
    n_local = min(_N_LOCAL if len(table) <= _LARGE else 1, len(extremes[0]))
    return StudySummary(
        table=table,
        settings=settings,
        importance=global_importance(table, **draws),
        signed=_signed(table),
        contextual=contextual(table, **draws),
        scores=scores,
        extremes=extremes,
        drivers=_drivers(table, fitted, targets, settings),
        driver_targets=targets,
        local={case: local_against_global(table, case) for case in extremes[0][:n_local]},
        against_dice=against,
        detection=detection,
        bias=bias,
        outlier_bias=outliers,
        notes=notes,
        has_reference=reference is not None,
    )


def _strangest(scores: pd.DataFrame, case: str) -> str:
    """Target in which a case is strangest: least p, or the highest score where there is none."""
    own = scores[(scores["case"] == case) & (scores["target"] != ALL_TARGETS)]
    own = own[own["score"].notna()]
    ranked = own.sort_values(["p_tail", "score"], ascending=[True, False], kind="stable")
    return str(ranked["target"].iloc[0])


def _drivers(
    table: CohortTable,
    fitted: Anomalies | None,
    targets: Mapping[str, str],
    settings: SummarySettings,
) -> dict[str, pd.DataFrame]:
    found = {}
    for case, target in targets.items():
        own = fitted or held_out_detectors(table, settings.anomalies, case, targets=[target])
        found[case] = drivers(own, table, case, target)
    return found


def _signed(table: CohortTable) -> dict[str, pd.DataFrame]:
    """Mean share of what is positive, and of what is negative, in all that is attributed."""
    if not {"positive", "negative"} <= set(table.values):
        return {}
    parts = [table.regions.index(region) for region in table.parts]
    patients = PatientMeans(table.cases)
    found: dict[str, list[NDArray[np.float64]]] = {"positive": [], "negative": []}
    for t in range(len(table.targets)):
        above, below = (table.values[name][:, t] for name in found)
        whole = (above[:, parts] - below[:, parts]).sum(axis=1, keepdims=True)
        for name, sign in (("positive", 1.0), ("negative", -1.0)):
            share = np.full(above.shape, np.nan)
            np.divide(sign * table.values[name][:, t], whole, out=share, where=whole > 0)
            share = patients.of(share)
            n = np.isfinite(share).sum(axis=0)
            mean = np.full(len(n), np.nan)
            np.divide(np.nansum(share, axis=0), n, out=mean, where=n > 0)
            found[name].append(mean)
    names, regions = pd.Index(table.targets), pd.Index(table.regions)
    return {name: pd.DataFrame(np.array(rows), names, regions) for name, rows in found.items()}


def _dice(
    table: CohortTable, scores: pd.DataFrame, settings: SummarySettings, notes: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Correlation of scores with Dice, and detection of low Dice."""
    if table.dice.isna().all(axis=None):  # also of a table without columns
        notes["dice"] = "No Dice is known (no true labels)"
    elif not set(table.dice.columns) & set(table.targets):
        notes["dice"] = "No target has the name of a class with a Dice"
    elif scores.empty:
        notes["dice"] = "No case has an anomaly score to compare with its Dice"
    else:
        common: dict[str, Any] = {
            "n_boot": settings.n_boot, "level": settings.level, "seed": settings.seed
        }  # fmt: skip
        return (
            anomaly_against_dice(scores, table.dice, table.patients, **common),
            low_dice_detection(scores, table.dice, table.patients, **common),
        )
    return pd.DataFrame(columns=list(AGAINST_DICE)), pd.DataFrame(columns=list(DETECTION))


def _bias(
    table: CohortTable, scores: pd.DataFrame, settings: SummarySettings, notes: dict[str, str]
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Test importance and outliers; q over all of them together."""
    empty = pd.DataFrame(columns=list(BIAS))
    if table.metadata.dropna(axis=1, how="all").empty:
        notes["bias"] = "Groups were not compared: nothing is known of the patients (no metadata)"
        return empty, empty
    common: dict[str, Any] = {"min_group": settings.min_group, "level": settings.level}
    bias = bias_table(importance_features(table), table.metadata, table.patients, **common)
    outliers = empty
    if len(scores):
        whole = scores[scores["target"] == ALL_TARGETS]
        flags = whole.set_index("case")["is_outlier"].astype("boolean")
        # who has no score, or none that could be called an outlier, is not told from others
        is_known = whole["score" if settings.anomalies.rule == "predict" else "q"].notna()
        flags = flags.where(is_known.to_numpy(bool)).reindex(table.cases.index)
        outliers = outlier_bias(
            flags, table.metadata, table.patients, seed=settings.seed,
            preset=settings.bias_preset, **common,
        )  # fmt: skip
    bias, outliers = _adjusted_together([bias, outliers])
    return bias, outliers


def _first_note(frame: pd.DataFrame, otherwise: str) -> str:
    notes = [str(note) for note in dict.fromkeys(frame["note"]) if note]
    return notes[0] if notes else otherwise
