"""Differences between types of lesions within patients: a mixed model of each feature."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import optimize, stats

from voxplain.records.lesion_tables import check_columns
from voxplain.regions.lesion import TYPES
from voxplain.study.bootstrap import check_level
from voxplain.study.feature_values import KEY, VALUES
from voxplain.study.lesion_tests import UNKNOWN

MIXED = (
    *KEY, "type", "reference", "n", "n_patients", "coefficient", "low", "high", "level", "p",
    "sd_patient", "sd_residual", "note",
)  # fmt: skip
"""One row a feature and type. coefficient: how much higher the feature is than in `reference`,
in its unit. sd_patient, sd_residual: spread of patients, and of lesions within one. note: why
there is no coefficient, or what is special."""

REFERENCE = "TP"
Floats = NDArray[np.float64]
_ZERO = 1e-9  # residual variance, of an outcome with variance 1
_SMALL, _N_RATIOS = 1e-6, 60  # ratios of variances that are tried first


def mixed_models(values: pd.DataFrame, *, level: float = 0.95) -> pd.DataFrame:
    """Fit feature = mean + type + patient + residual, patients random, for each feature.

    Parameters
    ----------
    values
        From `voxplain.study.feature_values.feature_values`.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `MIXED`: each type against true positives. Restricted maximum likelihood;
        interval and p by the normal distribution (Wald). What cannot be fitted is a row with a
        reason in ``note`` and no coefficient.

    Raises
    ------
    DataError
        If `level` is out of its range.

    Notes
    -----
    p is not corrected for the number of features; below about ten patients the normal
    distribution makes it too small where types differ between patients rather than within them.
    A random intercept leaves one unknown, the ratio of the two variances, once means and residual
    variance are solved for; it is searched on [0, ∞). The general optimiser of statsmodels'
    MixedLM, which the tests compare with, stops short in one of four studies whose patients
    differ little.
    """
    check_columns(values, VALUES, "feature_values")
    check_level(level)
    rows = []
    known = values[(values["type"] != UNKNOWN) & values["value"].notna()]
    for names, part in known.groupby(list(KEY), sort=False):
        same = {
            **dict(zip(KEY, names, strict=True)), "reference": REFERENCE, "n": len(part),
            "n_patients": part["patient"].nunique(), "level": level,
        }  # fmt: skip
        others: list[str] = [t for t in TYPES if t != REFERENCE and (part["type"] == t).any()]
        reason = _obstacle(part, others)
        fitted = reason if reason else _fit(part, others, level)
        if isinstance(fitted, str):
            rows += [{**same, "type": t, "note": fitted} for t in others or [""]]
        else:
            rows += [{**same, **row} for row in fitted]
    return pd.DataFrame(rows, columns=list(MIXED))


def _obstacle(part: pd.DataFrame, others: Sequence[str]) -> str:
    """Why there is nothing to fit; empty if there is."""
    sizes = part.groupby("patient").size()
    n_parameters = len(others) + 3
    obstacles = {
        "true positives alone, nothing to compare": not others,
        "no true positive to compare with": not (part["type"] == REFERENCE).any(),
        "one patient": len(sizes) < 2,
        "one lesion in each patient, so patients and lesions are the same": sizes.max() < 2,
        "all values are equal": part["value"].nunique() < 2,
        f"{len(part)} lesions for {n_parameters} parameters": len(part) < n_parameters,
    }
    return next((f"not fitted: {reason}" for reason, is_so in obstacles.items() if is_so), "")


def _fit(part: pd.DataFrame, others: Sequence[str], level: float) -> list[dict[str, Any]] | str:
    scale = float(part["value"].std(ddof=0))
    outcome: Floats = (part["value"].to_numpy(float) - float(part["value"].mean())) / scale
    design: Floats = np.column_stack(
        [np.ones(len(part)), *((part["type"] == t).to_numpy(float) for t in others)]
    )
    owner = np.unique(part["patient"].to_numpy(str), return_inverse=True)[1]
    patients = np.eye(owner.max() + 1)[owner]
    n_all = np.linalg.matrix_rank(np.column_stack([design, patients]))
    if n_all == np.linalg.matrix_rank(design):
        return "not fitted: each patient has one type, and patients are too few to differ beside it"
    if n_all == len(part):
        return "not fitted: as many types and patients as lesions, nothing is left to compare"
    sums = _Sums.of(outcome, design, owner)
    ratio = _best_ratio(sums)
    means, residual, covariance = sums.solve(ratio)[1:]
    if not residual > _ZERO:
        return "not fitted: type and patient explain every value, nothing is left to compare"
    errors = np.sqrt(residual * np.diag(covariance))
    width = float(stats.norm.ppf((1 + level) / 2))
    return [
        {
            "type": kind, "coefficient": scale * mean, "low": scale * (mean - width * error),
            "high": scale * (mean + width * error),
            "p": float(2 * stats.norm.sf(abs(mean / error))),
            "sd_patient": scale * float(np.sqrt(ratio * residual)),
            "sd_residual": scale * float(np.sqrt(residual)),
            "note": "" if ratio > 0 else "patients do not differ: their variance is 0",
        }
        for kind, mean, error in zip(others, means[1:], errors[1:], strict=True)
    ]  # fmt: skip


class _Sums(NamedTuple):
    """What the likelihood needs of outcome y and design X: sums over all lesions, and by patient.

    With V = I + ratio·11ᵀ for the n lesions of a patient, V⁻¹ = I − 11ᵀ · ratio / (1 + n·ratio).
    """

    n: Floats
    X: Floats
    y: Floats
    XX: Floats
    Xy: Floats
    yy: float

    @classmethod
    def of(cls, outcome: Floats, design: Floats, owner: NDArray[np.intp]) -> _Sums:
        """`owner`: (n,) patient of each row, from 0."""
        of_patient = np.eye(owner.max() + 1)[owner].T
        return cls(
            of_patient.sum(axis=1), of_patient @ design, of_patient @ outcome,
            design.T @ design, design.T @ outcome, float(outcome @ outcome),
        )  # fmt: skip

    def solve(self, ratio: float) -> tuple[float, Floats, float, Floats]:
        """Return −2 log likelihood, means, residual variance and (XᵀV⁻¹X)⁻¹ at a ratio."""
        shrink = ratio / (1 + self.n * ratio)
        information = self.XX - (self.X * shrink[:, None]).T @ self.X
        covariance: Floats = np.asarray(np.linalg.inv(information), np.float64)
        right = self.Xy - self.X.T @ (shrink * self.y)
        means = covariance @ right
        rest = self.yy - float(shrink @ self.y**2) - float(right @ means)
        free = int(self.n.sum()) - len(means)
        loss = float(np.log1p(self.n * ratio).sum()) - float(np.linalg.slogdet(covariance)[1])
        return loss + free * np.log(max(rest, _ZERO**2)), means, rest / free, covariance


def _best_ratio(sums: _Sums) -> float:
    """Variance of patients over that of residuals, at the highest restricted likelihood."""
    ratios = np.concatenate([[0.0], np.geomspace(_SMALL, 1 / _SMALL, _N_RATIOS)])
    losses = [sums.solve(ratio)[0] for ratio in ratios]
    best = int(np.argmin(losses))
    if best == 0:
        return 0.0
    near = np.log([ratios[max(1, best - 1)], ratios[min(best + 1, _N_RATIOS)]])
    found = optimize.minimize_scalar(
        lambda x: sums.solve(float(np.exp(x)))[0],
        bounds=(float(near[0]), float(near[1])), method="bounded", options={"xatol": 1e-9},
    )  # fmt: skip
    return float(np.exp(found.x))
