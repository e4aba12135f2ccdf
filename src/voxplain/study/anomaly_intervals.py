"""Intervals of rank statistics over patients: drawn where they are few, asymptotic else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.study.bootstrap import PatientDraws, interval
from voxplain.study.effects import blocks, rho_interval

MANY_PATIENTS = 1000
"""With more, intervals are asymptotic: draws would tell the same and take minutes."""

DRAWN, ASYMPTOTIC = "bootstrap", "asymptotic"

_BLOCK = 2_000_000  # numbers of one block of draws

Floats = NDArray[np.float64]
Codes = NDArray[np.intp]


def spearman_interval(
    a: Floats, b: Floats, rho: float, *, n_boot: int, level: float, seed: int
) -> tuple[float, float, str]:
    """Return the interval of Spearman's correlation of one value a patient.

    Up to `MANY_PATIENTS`: patients drawn with replacement. Else
    `voxplain.study.effects.rho_interval`.

    Parameters
    ----------
    a, b
        (n_patients,) finite.
    rho
        Their correlation.
    n_boot, level, seed
        As in `voxplain.study.bootstrap`.

    Returns
    -------
    low, high, how
        NaN where there is none; ``bootstrap`` or ``asymptotic``.
    """
    n = len(a)
    if n > MANY_PATIENTS:
        return *rho_interval(rho, n, level), ASYMPTOTIC
    draws = PatientDraws([f"{i:06d}" for i in range(n)], n_boot, seed)
    return *interval(spearman_draws(a, b, draws.counts), n, level), DRAWN


def spearman_draws(a: Floats, b: Floats, counts: NDArray[np.int64]) -> Floats:
    """Return Spearman's correlation of each draw, ties with their mean rank.

    Parameters
    ----------
    a, b
        (n,) finite.
    counts
        (n_boot, n) how often each was drawn.

    Returns
    -------
    numpy.ndarray
        (n_boot,); NaN where all drawn values of one side are equal.
    """
    size = max(1, _BLOCK // max(len(a), 1))
    found = []
    for start in range(0, len(counts), size):
        drawn = counts[start : start + size].astype(np.float64)
        ranks = [_midranks(values, drawn) for values in (a, b)]
        n = drawn.sum(axis=1, keepdims=True)
        x, y = (r - (r * drawn).sum(axis=1, keepdims=True) / n for r in ranks)
        below = np.sqrt((drawn * x * x).sum(axis=1) * (drawn * y * y).sum(axis=1))
        rho = np.full(len(drawn), np.nan)
        np.divide((drawn * x * y).sum(axis=1), below, out=rho, where=below > 0)
        found.append(rho)
    return np.concatenate(found)


def _midranks(values: Floats, drawn: Floats) -> Floats:
    """Mean rank of each value in each draw, (n_draws, n)."""
    order = np.argsort(values, kind="stable")
    starts, sizes = blocks(values[order])
    tied = np.add.reduceat(drawn[:, order], starts, axis=1)
    middle = np.cumsum(tied, axis=1) - (tied - 1) / 2
    place = np.empty(len(values), np.intp)
    place[order] = np.repeat(np.arange(len(starts)), sizes)
    found: Floats = middle[:, place]
    return found


def auroc_interval(
    scores: Floats, is_positive: NDArray[np.bool_], patients: list[str], *, n_boot: int,
    level: float, seed: int,
) -> tuple[float, float, str]:  # fmt: skip
    """Return the interval of an AUROC over cases, whose patients are independent.

    Up to `MANY_PATIENTS`: patients drawn with replacement. Else on the log-odds scale, with the
    standard error of `auroc_error`.

    Parameters
    ----------
    scores, is_positive
        (n,) finite; both kinds are there.
    patients
        Whose each case is.
    n_boot, level, seed
        As in `voxplain.study.bootstrap`.

    Returns
    -------
    low, high, how
        NaN where there is none; ``bootstrap`` or ``asymptotic``.
    """
    from scipy import special

    names, owner = np.unique(np.asarray(patients, str), return_inverse=True)
    if len(names) <= MANY_PATIENTS:
        draws = PatientDraws(patients, n_boot, seed)
        deltas = draws.deltas(
            scores[is_positive], owner[is_positive], scores[~is_positive], owner[~is_positive]
        )
        return *interval((deltas + 1) / 2, len(names), level), DRAWN
    area, error = auroc_error(scores, is_positive, owner)
    if not 0 < area < 1:
        return np.nan, np.nan, ASYMPTOTIC
    half = special.ndtri((1 + level) / 2) * error / (area * (1 - area))
    low, high = special.expit(special.logit(area) + np.array([-half, half]))
    return float(low), float(high), ASYMPTOTIC


def auroc_error(
    scores: Floats, is_positive: NDArray[np.bool_], owner: Codes
) -> tuple[float, float]:
    """Return an AUROC and its standard error from patients' parts of it.

    With V_i the share of negatives below positive i (ties half), V_j the share of positives above
    negative j, and A their mean: d_k = Σ_{i of k} (V_i − A) / m + Σ_{j of k} (V_j − A) / n over
    the cases of patient k; variance = K / (K − 1) · Σ_k d_k².

    Parameters
    ----------
    scores, is_positive
        (m + n,) finite; m positives and n negatives.
    owner
        (m + n,) whose each case is, whole numbers from 0.

    Returns
    -------
    area, error
        Both in 0…1.

    References
    ----------
    DeLong et al., Biometrics 44 (1988); Obuchowski, Biometrics 53 (1997).
    """
    high, low = scores[is_positive], scores[~is_positive]
    above = _share_below(high, low)
    under = 1 - _share_below(low, high)
    area = float(above.mean())
    parts = np.zeros(len(scores))
    parts[is_positive] = (above - area) / len(high)
    parts[~is_positive] = (under - area) / len(low)
    of_patient = np.bincount(owner, parts)
    n_patients = np.count_nonzero(np.bincount(owner))
    variance = (of_patient**2).sum() * n_patients / (n_patients - 1)
    return area, float(np.sqrt(variance))


def _share_below(values: Floats, others: Floats) -> Floats:
    ranked = np.sort(others)
    n = np.searchsorted(ranked, values, "left") + np.searchsorted(ranked, values, "right")
    found: Floats = n / (2 * len(others))
    return found
