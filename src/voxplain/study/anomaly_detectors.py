"""Detectors of strange shares of one target: fitted on some cases, scoring any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import DataError
from voxplain.study.anomaly_settings import AnomalySettings
from voxplain.study.compositions import closed, clr, replace_zeros, smallest_shares

_DIGITS = 12

Floats = NDArray[np.float64]

MOST_FITTED = 20_000
"""More cases are not fitted on: they change medians and covariances of some ten regions by less
than 1 %. An isolation forest draws its own."""

ORIGINS: Mapping[str, float] = {"mahalanobis": 0.0, "isolation_forest": -0.5, "lof": -0.5}
"""Scores less this go into the tail: the squared distance, the paper's anomaly score, and the
factor less 1 (how much sparser a case is than its neighbours). The factor itself would not do: it
is near 1 for all ordinary cases, so that logarithms of the largest ones grow faster than a
straight tail, and false alarms were 9.5 % of 400 null cohorts with heavy tails, not 5 %."""


@dataclass(frozen=True, eq=False)
class Detector:
    """What is ordinary for the shares of one target.

    Parameters
    ----------
    settings
        How it was fitted.
    delta
        (n_parts,) what a zero becomes; None with features ``share``.
    centre
        (n_parts,) median of the features; of log-ratios less its mean, so that it sums to 0.
    spread
        (n_parts,) root mean square of the features' distances from `centre`.
    precision
        (n_parts, n_parts) S⁻¹ of ``mahalanobis``; None for others.
    model
        scikit-learn's detector; None with ``mahalanobis``.
    note
        What was done otherwise than asked for.
    """

    settings: AnomalySettings
    delta: Floats | None
    centre: Floats
    spread: Floats
    precision: Floats | None
    model: Any
    note: str = ""

    def features(self, shares: Floats) -> Floats:
        """Turn (n, n_parts) shares, finite, into what is looked at, (n, n_parts)."""
        if self.delta is None:
            return shares
        return clr(replace_zeros(closed(shares), self.delta))

    @property
    def expected(self) -> Floats:
        """(n_parts,) shares at `centre`; of log-ratios they sum to 1."""
        return self.centre if self.delta is None else closed(np.exp(self.centre))

    def score(self, shares: Floats) -> Floats:
        """Score cases: higher is stranger.

        Parameters
        ----------
        shares
            (n, n_parts) finite.

        Returns
        -------
        numpy.ndarray
            (n,): the squared distance (x − m)ᵀ S⁻¹ (x − m) of ``mahalanobis``, else
            −decision_function of scikit-learn, to 12 decimals: different points can have one local
            outlier factor but for rounding, and are then to be equal.
        """
        X = self.features(shares)
        if self.precision is not None:
            moved = X - self.centre
            squared: Floats = np.einsum("ij,ij->i", moved @ self.precision, moved)
            return squared
        return np.round(-np.asarray(self.model.decision_function(X), np.float64), _DIGITS)


def fit_detector(shares: Floats, settings: AnomalySettings) -> Detector:
    """Learn what is ordinary.

    Parameters
    ----------
    shares
        (n, n_parts) finite, n ≥ 3, n_parts ≥ 2; in an order that says nothing of the cases,
        because an isolation forest draws rows by their place, and the others are fitted on the
        first `MOST_FITTED`.
    settings
        Which detector, of what.

    Returns
    -------
    Detector
        Fitted.

    Raises
    ------
    DataError
        If all cases have the same shares, or shares cannot be turned into log-ratios.

    Notes
    -----
    Log-ratios sum to 0, so that their covariance has no inverse. ``mahalanobis`` takes them in an
    orthonormal basis of the plane where they lie (n_parts − 1 isometric log-ratios), about the
    median, shrinks the covariance there (Ledoit & Wolf 2004), and turns its inverse back into the
    space of regions. Neither median nor shrinkage depends on which basis it is. A zero becomes
    half of the smallest share of that region among these cases.
    """
    note = ""
    if settings.detector != "isolation_forest" and len(shares) > MOST_FITTED:
        note = f"fitted on {MOST_FITTED} of {len(shares)} cases"
        shares = shares[:MOST_FITTED]
    delta, X = None, shares
    if settings.features == "clr":
        whole = closed(shares)
        delta = smallest_shares(whole)
        X = clr(replace_zeros(whole, delta))
    if not np.ptp(X, axis=0).any():
        raise DataError("all cases have the same shares, so nothing tells how they vary")
    centre = np.median(np.ascontiguousarray(X.T), axis=1, overwrite_input=True)
    if delta is not None:
        centre -= centre.mean()
    spread = np.sqrt(np.mean((X - centre) ** 2, axis=0))
    precision, model = None, None
    if settings.detector == "mahalanobis":
        precision = _precision(X - centre, is_plane=delta is not None)
    elif settings.detector == "isolation_forest":
        from sklearn.ensemble import IsolationForest

        model = IsolationForest(n_estimators=settings.n_trees, random_state=settings.seed).fit(X)
    else:
        from sklearn.neighbors import LocalOutlierFactor

        n = min(settings.n_neighbours, len(X) - 1)
        if n < settings.n_neighbours:
            note = f"{n} neighbours: only {len(X)} cases to fit on"
        model = LocalOutlierFactor(n_neighbors=n, novelty=True).fit(X)
    return Detector(settings, delta, centre, spread, precision, model, note)


def _precision(moved: Floats, *, is_plane: bool) -> Floats:
    """Inverse of the shrunk covariance; of log-ratios, the pseudo-inverse."""
    from scipy.linalg import helmert
    from sklearn.covariance import LedoitWolf

    if not is_plane:
        return np.asarray(LedoitWolf(assume_centered=True).fit(moved).precision_, np.float64)
    basis = helmert(moved.shape[1])  # orthonormal rows, each summing to 0
    fitted = LedoitWolf(assume_centered=True).fit(moved @ basis.T)
    found: Floats = basis.T @ fitted.precision_ @ basis
    return found
