"""Cases that a model handles abnormally: shares of regions unlike those of a cohort."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError, LabelError, MethodError
from voxplain.records.cohort_table import CohortTable
from voxplain.study.anomaly_cases import CaseOrder, Shares, shares_of
from voxplain.study.anomaly_detectors import ORIGINS, Detector, fit_detector
from voxplain.study.anomaly_rows import ALL_TARGETS, ANOMALIES, AnomalyRows
from voxplain.study.anomaly_settings import AnomalySettings
from voxplain.study.conformal import Reference, p_among

SEEN = "no p: the patient is in the cohort that was fitted on"
NO_P = "no p: no patients were kept to compare with"
NO_TARGET = "no target was scored"

LEAST_FITTED = 3
"""Fewest patients that a detector is fitted on after a split."""

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


@dataclass(frozen=True, eq=False)
class Anomalies:
    """Detectors of one cohort, a target each, and the scores that others are compared with.

    Parameters
    ----------
    settings
        How they were fitted.
    parts
        Regions whose shares they look at, in their order.
    detectors
        By target.
    skipped
        By target: why it has none.
    references
        By target, and of `ALL_TARGETS`: scores of patients that no detector saw. Empty with the
        rule ``predict``, and from `held_out_detectors`.
    seen
        Digests of the patients of the fitting cohort.
    """

    settings: AnomalySettings
    parts: tuple[str, ...]
    detectors: Mapping[str, Detector]
    skipped: Mapping[str, str]
    references: Mapping[str, Reference] = field(default_factory=dict)
    seen: frozenset[bytes] = frozenset()

    def score(self, table: CohortTable) -> pd.DataFrame:
        """Score the cases of another cohort.

        Parameters
        ----------
        table
            Of the same regions. Targets that were not fitted on are left out.

        Returns
        -------
        pandas.DataFrame
            Columns `ANOMALIES`: all cases of each target, then of `ALL_TARGETS`. A case whose
            patient is in the fitting cohort has a score of each target and no p. Its score over
            all targets is made of p-values, so that it has none either (with the rule
            ``predict``, which makes it of scores, it has one).

        Raises
        ------
        LabelError
            If the regions are others, or shares were not loaded.
        DataError
            If a share is negative.
        """
        if set(table.parts) != set(self.parts):
            raise LabelError(
                f"the detectors look at the regions {', '.join(self.parts)}; these cases have "
                f"{', '.join(table.parts)}: score with the regions that were fitted on"
            )
        cases = CaseOrder.of(table, self.settings.seed)
        is_seen = cases.is_of(self.seen)
        known = (*self.detectors, *self.skipped)
        rows = AnomalyRows(self.settings, [t for t in table.targets if t in known], len(table))
        for target in rows.targets:
            if target in self.skipped:
                rows.say(target, self.skipped[target])
                continue
            shares = shares_of(table, target, self.parts, cases)
            at = shares.known
            rows.say_state(target, shares)
            rows.score[target][at] = self.detectors[target].score(shares.values[at])
            self._compare(rows, target, at, is_seen)
            rows.say(target, self.detectors[target].note, at)
        rows.combine()
        rows.say(ALL_TARGETS, NO_TARGET, np.flatnonzero(rows.has_none))
        self._compare(rows, ALL_TARGETS, cases.order[~rows.has_none[cases.order]], is_seen)
        return rows.frame(table)

    def _compare(
        self, rows: AnomalyRows, target: str, at: Codes, is_seen: NDArray[np.bool_]
    ) -> None:
        if target not in self.references:
            rows.say(target, NO_P, at)
            return
        new, reference = at[~is_seen[at]], self.references[target]
        scores = rows.score[target][new]
        rows.compared(target, new, reference.p(scores), reference.p_tail(scores))
        rows.say(target, SEEN, at[is_seen[at]])


def fit_anomalies(table: CohortTable, settings: AnomalySettings | None = None) -> Anomalies:
    """Learn from one cohort what is ordinary, to score another.

    Parameters
    ----------
    table
        The fitting cohort, with shares.
    settings
        None: `AnomalySettings()`.

    Returns
    -------
    Anomalies
        A detector for each target with `min_cases` patients; why not for the others.

    Raises
    ------
    LabelError
        If shares were not loaded.
    DataError
        If a share is negative.

    Notes
    -----
    Every second patient, by a digest of the name, is not fitted on: its scores are what others
    are compared with (split conformal). With the rule ``predict`` all are fitted on, as in the
    paper, and there is no p.

    Score of a case over all targets: the mean of −log10 p_tail over the targets that it has
    (Fisher's statistic over their number). p-values and not scores, because scores of two
    targets have two scales; logarithms, because a model may go wrong in one organ only, which a
    mean of ranks would hide. Targets of one case depend on each other, so that Fisher's χ² does
    not hold: the mean is compared with the other patients' means again. With the rule
    ``predict`` it is the paper's mean of the decision function, negated.
    """
    settings = settings or AnomalySettings()
    cases = CaseOrder.of(table, settings.seed)
    is_kept = (cases.rank % 2 == 1) & (settings.rule == "fdr")
    rows = AnomalyRows(settings, list(table.targets), len(table))
    detectors: dict[str, Detector] = {}
    skipped: dict[str, str] = {}
    references: dict[str, Reference] = {}
    origin = ORIGINS[settings.detector]
    for target in table.targets:
        shares = shares_of(table, target, table.parts, cases)
        at = shares.known
        kept = at[is_kept[at]]
        try:
            _check(shares, cases, settings)
            detectors[target] = _fit(shares, at[~is_kept[at]], cases, settings)
        except DataError as error:
            skipped[target] = f"skipped: {error}"
            continue
        if settings.rule == "predict":
            continue
        if cases.n_patients(kept) < LEAST_FITTED:
            skipped[target] = "skipped: the split left too few patients to compare with"
            del detectors[target]
            continue
        scores = detectors[target].score(shares.values[kept])
        references[target] = Reference(scores, cases.rank[kept], origin)
        rows.score[target][kept] = scores
        rows.compared(target, kept, *p_among(scores, cases.rank[kept], origin))
    if references:
        rows.combine()
        at = cases.order[np.isfinite(rows.score[ALL_TARGETS][cases.order])]
        references[ALL_TARGETS] = Reference(rows.score[ALL_TARGETS][at], cases.rank[at])
    return Anomalies(settings, table.parts, detectors, skipped, references, cases.digests)


def score_within(
    table: CohortTable, settings: AnomalySettings | None = None, n_folds: int = 5
) -> pd.DataFrame:
    """Score the cases of a cohort by detectors fitted on its other patients.

    Parameters
    ----------
    table
        The cohort, with shares.
    settings
        None: `AnomalySettings()`.
    n_folds
        Parts of the patients; each is scored by what was fitted on the others.

    Returns
    -------
    pandas.DataFrame
        Columns `ANOMALIES`: all cases of each target, then of `ALL_TARGETS`.

    Raises
    ------
    MethodError
        If `n_folds` is below 2.
    LabelError
        If shares were not loaded.
    DataError
        If a share is negative.

    Notes
    -----
    Folds are of equal size, by a digest of the patient, and do not depend on the order of cases
    or on targets. p compares a case with the held-out scores of all other patients. Their
    detectors differ a little from fold to fold, so that p is valid only nearly. See
    `fit_anomalies` for the score over all targets.
    """
    settings = settings or AnomalySettings()
    cases = CaseOrder.of(table, settings.seed)
    fold = _folds(cases, n_folds)
    rows = AnomalyRows(settings, list(table.targets), len(table))
    origin = ORIGINS[settings.detector]
    for target in table.targets:
        shares = shares_of(table, target, table.parts, cases)
        at = shares.known
        rows.say_state(target, shares)
        try:
            found, note = _held_out(shares, cases, fold, settings)
        except DataError as error:
            rows.say(target, f"skipped: {error}", at)
            continue
        rows.score[target][at] = found
        rows.compared(target, at, *p_among(found, cases.rank[at], origin))
        rows.say(target, note, at)
    rows.combine()
    at = cases.order[~rows.has_none[cases.order]]
    found, owner = rows.score[ALL_TARGETS][at], cases.rank[at]
    rows.compared(
        ALL_TARGETS, at, *p_among(found, owner, origin if settings.rule == "predict" else 0.0)
    )
    rows.say(ALL_TARGETS, NO_TARGET, np.flatnonzero(rows.has_none))
    return rows.frame(table)


def held_out_detectors(
    table: CohortTable,
    settings: AnomalySettings | None,
    case: str,
    *,
    n_folds: int = 5,
    targets: Sequence[str] | None = None,
) -> Anomalies:
    """Fit again the detectors by which `score_within` scored one case, to ask what drove it.

    Parameters
    ----------
    table, settings, n_folds
        As they were for `score_within`.
    case
        Name of a case.
    targets
        Which; None: all.

    Returns
    -------
    Anomalies
        For `voxplain.study.anomaly_drivers.drivers`; without p-values.

    Raises
    ------
    DataError
        If there is no such case, or a share is negative.
    MethodError
        If `n_folds` is below 2.
    TargetError
        If there is no such target.
    """
    settings = settings or AnomalySettings()
    if case not in table.cases.index:
        raise DataError(f"no case {case!r} in this cohort")
    cases = CaseOrder.of(table, settings.seed)
    fold = _folds(cases, n_folds)
    own = fold[table.cases.index.get_loc(case)]
    detectors: dict[str, Detector] = {}
    skipped: dict[str, str] = {}
    for target in table.targets if targets is None else targets:
        shares = shares_of(table, target, table.parts, cases)
        try:
            _check(shares, cases, settings)
            others = shares.known[fold[shares.known] != own]
            detectors[target] = _fit(shares, others, cases, settings)
        except DataError as error:
            skipped[target] = f"skipped: {error}"
    return Anomalies(settings, table.parts, detectors, skipped)


def _folds(cases: CaseOrder, n_folds: int) -> Codes:
    if n_folds < 2:
        raise MethodError(f"n_folds is at least 2, got {n_folds}")
    return cases.rank % n_folds


def _held_out(
    shares: Shares, cases: CaseOrder, fold: Codes, settings: AnomalySettings
) -> tuple[Floats, str]:
    """Score the known cases, each by what was fitted on other folds; and a note on that."""
    _check(shares, cases, settings)
    own = fold[shares.known]
    found, notes = np.full(len(own), np.nan), set()
    for one in np.unique(own):
        detector = _fit(shares, shares.known[own != one], cases, settings)
        found[own == one] = detector.score(shares.values[shares.known[own == one]])
        notes.add(detector.note)
    return found, "; ".join(sorted(notes - {""}))


def _check(shares: Shares, cases: CaseOrder, settings: AnomalySettings) -> None:
    n_patients = cases.n_patients(shares.known)
    if shares.values.shape[1] < 2:
        raise DataError("one region alone is always the whole")
    if n_patients < settings.min_cases:
        raise DataError(f"{n_patients} patients with this target, {settings.min_cases} are needed")


def _fit(shares: Shares, at: Codes, cases: CaseOrder, settings: AnomalySettings) -> Detector:
    if cases.n_patients(at) < LEAST_FITTED:
        raise DataError("the split left too few patients to fit on")
    return fit_detector(shares.values[at], settings)


__all__ = [
    "ALL_TARGETS", "ANOMALIES", "NO_P", "NO_TARGET", "SEEN", "Anomalies",
    "fit_anomalies", "held_out_detectors", "score_within",
]  # fmt: skip
