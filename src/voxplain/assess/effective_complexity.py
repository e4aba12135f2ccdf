"""Share of the voxels that a map marks at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.assess.map_peak import map_flags
from voxplain.errors import MethodError
from voxplain.records.metric import EMPTY_MAP, Measured, Metric

METRIC = Metric(
    name="effective_complexity",
    family="complexity",
    direction="lower",
    unit="1",
    low=0.0,
    high=1.0,
    summary="Share of the voxels whose magnitude is above a tenth of the largest one.",
    policy="Empty map: not defined. Constant map: 1, flagged.",
    source="Nguyen & Martínez 2020, arXiv 2007.07584; threshold and share as in Agg²Exp",
)


def effective_complexity(scores: ArrayLike, threshold: float = 0.1) -> Measured:
    """Return the share of voxels with s > threshold·max s.

    Parameters
    ----------
    scores
        (*shape) magnitudes, at least 0.
    threshold
        In [0, 1).

    Returns
    -------
    Measured
        In [0, 1]; NaN and `EMPTY_MAP` where every score is 0; 1 and `CONSTANT_MAP` where all are
        equal.

    Raises
    ------
    MethodError
        If a score is negative or not finite, there is none, or the threshold is out of range.

    Notes
    -----
    Differs from Quantus' EffectiveComplexity, which counts voxels instead of taking their
    share, has 10⁻⁵ as threshold and divides by the largest score of the whole batch.
    Memory: a boolean a voxel.

    References
    ----------
    Nguyen & Martínez 2020, arXiv 2007.07584; Agg²Exp (share and threshold 0.1).
    """
    if not 0 <= threshold < 1:
        raise MethodError(f"threshold is in [0, 1), got {threshold}")
    values, flags = magnitudes(scores)
    if EMPTY_MAP in flags:
        return Measured(np.nan, flags)
    return Measured(float(np.mean(values > threshold * values.max())), flags)


def magnitudes(scores: ArrayLike) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Return a map's magnitudes, and whether it is empty or constant.

    Parameters
    ----------
    scores
        (*shape), at least 0.

    Returns
    -------
    tuple of array and tuple of str
        float64 (*shape), not copied if it was that already; what `map_flags` says.

    Raises
    ------
    MethodError
        If a score is negative or not finite, or there is none.
    """
    values = np.asarray(scores, np.float64)
    flags = map_flags(values)
    if values.min() < 0:
        raise MethodError(
            f"magnitudes of a map are at least 0, got {values.min():.3g}; take the absolute values"
        )
    return values, flags
