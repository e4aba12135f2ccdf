"""How unequally a map shares out its magnitude: the Gini index."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from voxplain.assess.effective_complexity import magnitudes
from voxplain.records.metric import EMPTY_MAP, Measured, Metric

METRIC = Metric(
    name="sparseness",
    family="complexity",
    direction="higher",
    unit="1",
    low=0.0,
    high=1.0,
    summary="Gini index of the magnitudes: 0 all voxels alike, near 1 all in one voxel.",
    policy="Empty map: not defined. Constant map: 0, flagged.",
    source="Chalasani et al. 2020, arXiv 1810.06583",
)


def sparseness(scores: ArrayLike) -> Measured:
    """Return the Gini index Σ_k (2k − n − 1)·s_(k) / (n·Σs), s_(1) ≤ … ≤ s_(n).

    Parameters
    ----------
    scores
        (*shape) magnitudes, at least 0.

    Returns
    -------
    Measured
        In [0, 1 − 1/n]; NaN and `EMPTY_MAP` where every score is 0; 0 and `CONSTANT_MAP` where
        all are equal.

    Raises
    ------
    MethodError
        If a score is negative or not finite, or there is none.

    Notes
    -----
    Differs from Quantus' Sparseness, which adds 10⁻⁷ to every score and so depends on their
    unit. Time: one sort. Memory: three numbers a voxel.

    References
    ----------
    Chalasani et al. 2020, arXiv 1810.06583; Hurley & Rickard 2009, arXiv 0811.4706.
    """
    values, flags = magnitudes(scores)
    if EMPTY_MAP in flags:
        return Measured(np.nan, flags)
    if flags:
        return Measured(0.0, flags)
    ordered = np.sort(values, axis=None) / values.max()
    n = ordered.size
    weights = np.arange(1 - n, n, 2, dtype=np.float64) / n
    return Measured(float(weights @ ordered / ordered.sum()), flags)
