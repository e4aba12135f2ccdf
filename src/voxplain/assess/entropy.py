"""Over how many voxels a map spreads: the entropy of their shares."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import entr

from voxplain.assess.effective_complexity import magnitudes
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, Measured, Metric

METRIC = Metric(
    name="entropy",
    family="complexity",
    direction="lower",
    unit="nat",
    low=0.0,
    high=math.inf,
    summary="Shannon entropy of each voxel's share of the magnitude; ln n if all are alike.",
    policy="Empty map: not defined. Constant map: ln n, flagged.",
    source="Bhatt et al. 2020, arXiv 2005.00631 (complexity)",
)

NORMALISED = Metric(
    name="normalised_entropy",
    family="complexity",
    direction="lower",
    unit="1",
    low=0.0,
    high=1.0,
    summary="Entropy over ln n, its largest value: images of other sizes can be compared.",
    policy="Empty map, and a map of one voxel: not defined. Constant map: 1, flagged.",
    source="Bhatt et al. 2020, arXiv 2005.00631 (complexity), over ln n",
)


def entropy(scores: ArrayLike) -> Measured:
    """Return −Σ p·ln p with p = s/Σs, and 0·ln 0 = 0.

    Parameters
    ----------
    scores
        (*shape) magnitudes, at least 0.

    Returns
    -------
    Measured
        In nats, 0 (one voxel has it all) to ln n; NaN and `EMPTY_MAP` where every score is 0;
        ln n and `CONSTANT_MAP` where all are equal.

    Raises
    ------
    MethodError
        If a score is negative or not finite, or there is none.

    Notes
    -----
    exp of it is the number of voxels of a constant map with this entropy. Differs from Quantus'
    Complexity, which takes ln(p + 10⁻¹²). Memory: three numbers a voxel.

    References
    ----------
    Bhatt et al. 2020, arXiv 2005.00631 (complexity).
    """
    values, flags = magnitudes(scores)
    if EMPTY_MAP in flags:
        return Measured(np.nan, flags)
    if flags:
        return Measured(math.log(values.size), flags)
    scaled = values / values.max()
    return Measured(float(entr(scaled / scaled.sum()).sum()), flags)


def normalised_entropy(scores: ArrayLike) -> Measured:
    """Return `entropy` over ln n.

    Parameters
    ----------
    scores
        (*shape) magnitudes, at least 0.

    Returns
    -------
    Measured
        In [0, 1]; NaN and `EMPTY_MAP` where every score is 0; NaN and `CONSTANT_MAP` where there
        is one voxel; 1 and `CONSTANT_MAP` where all are equal.

    Raises
    ------
    MethodError
        As `entropy`.

    References
    ----------
    Bhatt et al. 2020, arXiv 2005.00631 (complexity), over its largest value.
    """
    found, n = entropy(scores), np.size(scores)
    if n == 1:
        return Measured(np.nan, found.flags)
    if CONSTANT_MAP in found.flags:
        return Measured(1.0, found.flags)
    return Measured(found.value / math.log(n), found.flags)
