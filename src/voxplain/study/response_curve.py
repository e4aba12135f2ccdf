"""Detection of inserted lesions against their size and contrast."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import LabelError, MethodError
from voxplain.records.lesion_tables import RESPONSE, check_columns

CURVE = (
    "model", "diameter_mm", "contrast", "n", "n_patients", "resampled", "rate", "low", "high",
    "probability_mean", "fitted",
)  # fmt: skip
"""One row a model, diameter and contrast. rate: share detected; low, high: its interval;
resampled: ``patient`` or, for one patient, ``place``; fitted: by `Psychometric`, missing at
contrast 0."""

HALF = ("model", "contrast", "diameter_mm", "low", "high", "note")
"""One row a model and contrast: the diameter at which half of the lesions are detected."""

RIDGE = 0.05
"""Penalty of the fit: as much as a few hundredths of a lesion."""

_STEPS, _HALVINGS = 60, 30
_EPS = 1e-9

Floats = NDArray[np.float64]


class Psychometric:
    """Logistic curves P(detected) = 1 / (1 + exp(−(a + b·log diameter + c·contrast))).

    Maximum likelihood with a ridge: the penalty RIDGE/2 · (α² + β² + γ²) on the coefficients of
    the standardised predictors keeps them finite where detection is all or nothing.

    Parameters
    ----------
    diameter_mm, contrast
        (n_cells,) conditions; at least two different ones.

    Notes
    -----
    A predictor with one value gets the coefficient 0.
    """

    def __init__(self, diameter_mm: Floats, contrast: Floats) -> None:
        raw = np.stack([np.log(diameter_mm), contrast], axis=1)
        self._mean = raw.mean(axis=0)
        sd = raw.std(axis=0)
        self._sd = np.where(sd > _EPS, sd, np.inf)  # a constant predictor becomes 0
        self._design = np.column_stack([np.ones(len(raw)), (raw - self._mean) / self._sd])

    def fit(self, n_detected: Floats, n: Floats) -> Floats:
        """Find the coefficients of many sets of counts at once.

        Parameters
        ----------
        n_detected, n
            (..., n_cells) lesions detected, and in all.

        Returns
        -------
        numpy.ndarray
            (..., 3) a, b, c. The likelihood is concave, so Newton steps that are halved until
            it rises find its one maximum.
        """
        shape = n.shape[:-1]
        hits, sizes = n_detected.reshape(-1, n.shape[-1]), n.reshape(-1, n.shape[-1])
        X = self._design
        found = np.zeros((len(sizes), 3))
        best = _loss(found, X, hits, sizes)
        for _ in range(_STEPS):
            chance = _logistic(found @ X.T)
            slope = (sizes * chance - hits) @ X + RIDGE * found
            spread = sizes * chance * (1 - chance)
            curvature = np.einsum("sk,ki,kj->sij", spread, X, X) + RIDGE * np.eye(3)
            step = np.linalg.solve(curvature, slope[..., None])[..., 0]
            if np.abs(step).max(initial=0) < _EPS:
                break
            size = np.ones(len(found))
            for _ in range(_HALVINGS):
                tried = found - size[:, None] * step
                loss = _loss(tried, X, hits, sizes)
                is_worse = loss > best + _EPS
                if not is_worse.any():
                    break
                size[is_worse] /= 2
            found, best = tried, loss
        slopes = found[:, 1:] / self._sd
        return np.column_stack([found[:, 0] - slopes @ self._mean, slopes]).reshape(*shape, 3)


def chance_of(coefficients: Floats, diameter_mm: Floats, contrast: Floats) -> Floats:
    """Probability of detection by coefficients a, b, c."""
    a, b, c = coefficients
    return _logistic(a + b * np.log(diameter_mm) + c * np.asarray(contrast))


def half_diameter(coefficients: Floats, contrast: float) -> Floats:
    """Diameter in mm at which half are detected: exp(−(a + c·contrast) / b).

    Parameters
    ----------
    coefficients
        (..., 3).
    contrast
        Factor.

    Returns
    -------
    numpy.ndarray
        (...); infinite where detection does not rise with the diameter.
    """
    a, b, c = np.moveaxis(coefficients, -1, 0)
    is_rising = b > _EPS
    with np.errstate(over="ignore"):
        found = np.exp(-(a + c * contrast) / np.where(is_rising, b, 1.0))
    return np.asarray(np.where(is_rising, found, np.inf))


def response_curve(
    frame: pd.DataFrame, *, n_boot: int = 1000, level: float = 0.95, seed: int = 0
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Summarise answers to inserted lesions, one model at a time.

    Parameters
    ----------
    frame
        Columns `records.lesion_tables.RESPONSE`; any number of patients and models.
    n_boot
        Bootstrap samples behind each interval. Patients are drawn with replacement, with all
        their lesions; places where a model has one patient only, whose intervals then say
        nothing about other patients.
    level
        Of the intervals.
    seed
        Of the bootstrap.

    Returns
    -------
    curve
        Columns `CURVE`.
    half
        Columns `HALF`; for each contrast but 0. ``note`` tells where the diameter is outside of
        the tested ones, or detection does not rise with it: the diameter is then missing.

    Raises
    ------
    LabelError
        If a column is missing, or the table is empty.
    MethodError
        If n_boot or level is out of range.

    Notes
    -----
    The curve is fitted without the lesions of contrast 0: what is not there has no diameter.
    Their rate is how often the clean tissue counts as lesion. Ends of intervals are quantiles of
    the bootstrap samples; an end is infinite where so many do not rise with the diameter.
    """
    check_columns(frame, RESPONSE, "response")
    if frame.empty:
        raise LabelError("the table response has no rows; insert lesions first")
    if n_boot < 1 or not 0 < level < 1:
        raise MethodError(
            f"n_boot is at least 1 and level between 0 and 1, got {n_boot} and {level}"
        )
    curves, halves = [], []
    for number, (model, rows) in enumerate(frame.groupby("model", sort=True)):
        rng = np.random.default_rng([seed, number])
        curve, half = _of_model(rows, n_boot, level, rng)
        curves.append(curve.assign(model=model))
        halves.append(half.assign(model=model))
    return (
        pd.concat(curves, ignore_index=True)[list(CURVE)],
        pd.concat(halves, ignore_index=True)[list(HALF)],
    )


def _of_model(
    rows: pd.DataFrame, n_boot: int, level: float, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    unit = "patient" if rows["patient"].nunique() > 1 else "place"
    keys = ["diameter_mm", "contrast"]
    cells = rows.groupby(keys, as_index=False).agg(
        n=("is_detected", "size"),
        n_patients=("patient", "nunique"),
        n_detected=("is_detected", "sum"),
        probability_mean=("probability_mean", "mean"),
    )
    place = cells.reset_index().merge(rows, on=keys, how="right", validate="1:m")["index"]
    group, _ = pd.factorize(rows[unit])
    n_groups = int(group.max()) + 1
    counts = np.zeros((2, n_groups, len(cells)))
    np.add.at(counts[0], (group, place.to_numpy()), rows["is_detected"].to_numpy(float))
    np.add.at(counts[1], (group, place.to_numpy()), 1.0)
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_boot)
    hits, sizes = drawn @ counts[0], drawn @ counts[1]
    ends = np.array([(1 - level) / 2, (1 + level) / 2])
    rates = np.divide(hits, sizes, out=np.full_like(hits, np.nan), where=sizes > 0)
    with warnings.catch_warnings():  # a cell may be in none of very few samples
        warnings.filterwarnings("ignore", "All-NaN", RuntimeWarning)
        low, high = np.nanquantile(rates, ends, axis=0)

    diameter, contrast = (cells[key].to_numpy(np.float64) for key in keys)
    is_real = contrast != 0
    fitted = np.full(len(cells), np.nan)
    halves: list[dict[str, object]] = []
    if is_real.any():
        curve = Psychometric(diameter[is_real], contrast[is_real])
        n, n_detected = (cells[k].to_numpy(np.float64)[is_real] for k in ("n", "n_detected"))
        best = curve.fit(n_detected, n)
        samples = curve.fit(hits[:, is_real], sizes[:, is_real])
        fitted[is_real] = chance_of(best, diameter[is_real], contrast[is_real])
        halves = list(_halves(best, samples, diameter[is_real], contrast[is_real], ends))
    cells = cells.assign(
        resampled=unit, rate=cells["n_detected"] / cells["n"], low=low, high=high, fitted=fitted
    )
    return cells, pd.DataFrame(halves, columns=[c for c in HALF if c != "model"])


def _halves(
    best: Floats, samples: Floats, diameter: Floats, contrast: Floats, ends: Floats
) -> Iterator[dict[str, object]]:
    """Rows of `HALF`."""
    for one in np.unique(contrast):
        found = float(half_diameter(best, one))
        # the sample at the quantile itself: some may be infinite
        low, high = np.quantile(half_diameter(samples, one), ends, method="nearest")
        note = ""
        if np.isinf(found):
            found, note = float("nan"), "detection does not rise with the diameter"
        elif found < diameter.min():
            note = "below the tested diameters"
        elif found > diameter.max():
            note = "above the tested diameters"
        yield {
            "contrast": float(one), "diameter_mm": found, "low": float(low), "high": float(high),
            "note": note,
        }  # fmt: skip


def _logistic(values: Floats) -> Floats:
    return np.asarray(0.5 * (1 + np.tanh(values / 2)))  # never overflows


def _loss(coefficients: Floats, X: Floats, hits: Floats, sizes: Floats) -> Floats:
    """Minus the log-likelihood, and the ridge; one number a set."""
    values = coefficients @ X.T
    loss = (sizes * np.logaddexp(0, values) - hits * values).sum(axis=1)
    return np.asarray(loss + RIDGE / 2 * (coefficients**2).sum(axis=1))
