"""p-values of scores by comparison with the scores of other patients."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]

LEAST_TAIL = 5
"""Fewest scores that a tail is told by."""

FEWEST_PATIENTS = 20
"""With fewer there is no tail: it would be a quarter of them or more."""


@dataclass(frozen=True, eq=False)
class Reference:
    """Scores of the patients that others are compared with.

    Parameters
    ----------
    scores
        (n,) finite; higher is stranger.
    patients
        (n,) whose each is, whole numbers from 0. A case counts as one over the number of its
        patient's cases.
    origin
        The tail is told on the logarithm of scores less this. Where it would begin at or below
        this, there is no tail.

    Notes
    -----
    Conformal p of a score s, from K patients: p = (1 + Σ_k share of the cases of patient k with a
    score ≥ s) / (K + 1). With one case a patient that is (1 + #{scores ≥ s}) / (n + 1). If the
    new patient is exchangeable with the K, P(p ≤ a) ≤ a, whatever the scores are distributed
    like. It is never below 1 / (K + 1).

    p of the tail: let u be the score with k = max(5, ⌊√K⌋) above it, and m the mean of
    log(score / u) over those. Above u, p = (1 + k) / (K + 1) · (1 + log(s / u) / (k·m))^(−k).
    Exact if the scores have a Pareto tail there, with its exponent unknown (a new log-excess over
    the mean of k others follows F(2, 2k)); too large for lighter tails, such as normal,
    exponential or χ²; too small for heavier ones.

    References
    ----------
    Vovk, Gammerman & Shafer, Algorithmic learning in a random world (2005); Lee, Barber &
    Willett, Distribution-free inference with hierarchical data (2023); Hill, Annals of
    Statistics 3 (1975).
    """

    scores: Floats
    patients: Codes
    origin: float = 0.0

    def __len__(self) -> int:
        return _n_different(self.patients)

    def p(self, scores: Floats) -> Floats:
        """Conformal p of cases of other patients, (m,); NaN stays."""
        ranked, weights = _ranked(self.scores, _weights(self.patients))
        found = (1 + _at_least(scores, ranked, weights)) / (len(self) + 1)
        return np.where(np.isnan(scores), np.nan, found)

    def p_tail(self, scores: Floats) -> Floats:
        """Conformal p up to the tail, and beyond by its shape, (m,); NaN stays."""
        ranked, weights = _ranked(self.scores, _weights(self.patients))
        return _with_tail(scores, self.p(scores), ranked, weights, len(self), self.origin)


def p_among(scores: Floats, patients: Codes, origin: float = 0.0) -> tuple[Floats, Floats]:
    """Compare every case with the other patients' of the same cohort.

    Parameters
    ----------
    scores
        (n,) finite.
    patients
        (n,) whose each is, whole numbers from 0.
    origin
        As in `Reference`.

    Returns
    -------
    p, p_tail
        (n,) each: what a `Reference` of all other patients gives. NaN if there is none.
    """
    n_patients = _n_different(patients)
    if n_patients < 2:
        return np.full(len(scores), np.nan), np.full(len(scores), np.nan)
    weight = _weights(patients)
    ranked, weights = _ranked(scores, weight)
    within = pd.Series(scores).groupby(patients).rank(method="max", ascending=False)
    own = within.to_numpy() * weight
    p = (1 + _at_least(scores, ranked, weights) - own) / n_patients
    p_tail = p.copy()
    n_tail = _n_tail(n_patients - 1)
    if not n_tail:
        return p, p_tail
    # without a patient, whose cases weigh 1 in all, the tail of the others begins no lower
    low = _threshold(ranked, weights, n_tail + 2)
    is_top = scores >= low
    top, top_patients, top_weight = scores[is_top], patients[is_top], weight[is_top]
    for one in np.unique(top_patients):
        mine = top_patients == one
        others, other_weights = _ranked(top[~mine], top_weight[~mine])
        at = np.flatnonzero(is_top)[mine]
        p_tail[at] = _with_tail(scores[at], p[at], others, other_weights, n_patients - 1, origin)
    return p, p_tail


def _n_different(patients: Codes) -> int:
    return int(np.count_nonzero(np.bincount(patients)))


def _weights(patients: Codes) -> Floats:
    found: Floats = 1 / np.bincount(patients)[patients]
    return found


def _ranked(scores: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """Scores from the highest, and their weights."""
    order: Codes = np.argsort(-scores, kind="stable")
    return scores[order], weights[order]


def _at_least(scores: Floats, ranked: Floats, weights: Floats) -> Floats:
    """Weight of the ranked scores that are at least so high."""
    upto = np.concatenate([[0.0], np.cumsum(weights)])
    found: Floats = upto[np.searchsorted(-ranked, -scores, side="right")]
    return found


def _n_tail(n_patients: int) -> int:
    return max(LEAST_TAIL, isqrt(n_patients)) if n_patients >= FEWEST_PATIENTS else 0


def _threshold(ranked: Floats, weights: Floats, n_above: float) -> float:
    """Return the first score, from the highest, with a weight of n_above before it."""
    before = np.cumsum(weights) - weights
    at = np.searchsorted(before, n_above - 1e-9)
    return float(ranked[min(int(at), len(ranked) - 1)])


def _with_tail(
    scores: Floats, p: Floats, ranked: Floats, weights: Floats, n_patients: int, origin: float
) -> Floats:
    n_tail = _n_tail(n_patients)
    if not n_tail:
        return p
    u = _threshold(ranked, weights, n_tail)
    above = ranked > u
    k = weights[above].sum()
    if u <= origin or not above.any():
        return p
    mean = (weights[above] * np.log((ranked[above] - origin) / (u - origin))).sum() / k
    far = scores > u
    excess = np.log((scores[far] - origin) / (u - origin))
    found = p.copy()
    found[far] = (1 + k) / (n_patients + 1) * (1 + excess / (k * mean)) ** -k
    return found
