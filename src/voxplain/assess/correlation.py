"""Correlation of two maps over their voxels: of values, and of ranks."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import rankdata

from voxplain.assess.ssim import pair
from voxplain.records.metric import Measured, Metric

_POLICY = "Empty or constant map: not defined."

PEARSON = Metric(
    name="pearson",
    family="agreement",
    direction="none",
    unit="1",
    low=-1.0,
    high=1.0,
    summary="Linear correlation of two maps over all voxels.",
    policy=_POLICY,
    source="Pearson's product-moment correlation",
)

SPEARMAN = Metric(
    name="spearman",
    family="agreement",
    direction="none",
    unit="1",
    low=-1.0,
    high=1.0,
    summary="Correlation of the voxels' ranks in two maps; ties share their mean rank.",
    policy=_POLICY,
    source="as a criterion of saliency: Adebayo et al. 2018, arXiv 1810.03292",
)


def pearson(a: ArrayLike, b: ArrayLike) -> Measured:
    """Return Σ (a − ā)(b − b̄) / sqrt(Σ (a − ā)²·Σ (b − b̄)²).

    Parameters
    ----------
    a, b
        (*shape), alike; signed or not.

    Returns
    -------
    Measured
        In [−1, 1]; NaN and a flag where a map has one value everywhere.

    Raises
    ------
    GridError
        If the shapes differ.
    MethodError
        If a value is not finite, or there is none.

    Notes
    -----
    Rounding beyond ±1 is cut. Memory: four numbers a voxel.
    """
    first, second, flags = pair(a, b)
    if flags:
        return Measured(np.nan, flags)
    return Measured(_cosine(_centred(first), _centred(second)), flags)


def spearman(a: ArrayLike, b: ArrayLike) -> Measured:
    """Return the linear correlation of the ranks; tied voxels have the mean of theirs.

    Parameters
    ----------
    a, b
        (*shape), alike; signed or not: a rank counts from the lowest value.

    Returns
    -------
    Measured
        In [−1, 1]; NaN and a flag where a map has one value everywhere.

    Raises
    ------
    GridError
        If the shapes differ.
    MethodError
        If a value is not finite, or there is none.

    Notes
    -----
    A sparse map is mostly ties at 0: two of them agree here only where both are above. Time: two
    sorts. Memory: about six numbers a voxel.

    References
    ----------
    Adebayo et al. 2018, arXiv 1810.03292.
    """
    first, second, flags = pair(a, b)
    if flags:
        return Measured(np.nan, flags)
    return Measured(_cosine(_centred(rankdata(first)), _centred(rankdata(second))), flags)


def _centred(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values less their mean, divided by the largest magnitude so that no square underflows."""
    scaled = values.reshape(-1) / np.abs(values).max()
    centred = scaled - scaled.mean()
    return np.asarray(centred / np.abs(centred).max())


def _cosine(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
    return float(np.clip(x @ y / np.sqrt((x @ x) * (y @ y)), -1.0, 1.0))
