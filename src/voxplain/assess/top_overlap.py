"""How many of the highest voxels two maps share."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.assess.ssim import pair
from voxplain.errors import MethodError
from voxplain.records.metric import Measured, Metric

METRIC = Metric(
    name="top_overlap",
    family="agreement",
    direction="none",
    unit="1",
    low=0.0,
    high=1.0,
    summary="Share of the highest twentieth of one map's voxels that is in the other's too.",
    policy="Empty or constant map: not defined, for it has no highest voxels.",
    source="Ghorbani et al. 2019, arXiv 1710.10547 (top-k intersection)",
)


def top_overlap(a: ArrayLike, b: ArrayLike, share: float = 0.05) -> Measured:
    """Return |A ∩ B| / k, A and B the k highest voxels of each map.

    Parameters
    ----------
    a, b
        (*shape), alike.
    share
        k / n, in (0, 1]; k is rounded, and at least 1.

    Returns
    -------
    Measured
        In [0, 1]; about ``share`` for maps that have nothing to do with each other. NaN and a
        flag where a map has one value everywhere.

    Raises
    ------
    GridError
        If the shapes differ.
    MethodError
        If a value is not finite, there is none, or the share is out of range.

    Notes
    -----
    Ties: with t the k-th highest value, a voxel above t belongs to A with 1, one below with 0,
    and each of those tied at t with (k − number above) / number tied, so that A always weighs
    k. A voxel of the intersection counts the smaller of its two weights (intersection of fuzzy
    sets): equal maps have 1 also where they are tied. A rectified map with fewer than k voxels
    above 0 is filled up this way from its zeros. Nothing depends on the order of the voxels.

    Time: two partitions. Memory: two numbers a voxel.

    References
    ----------
    Ghorbani et al. 2019, arXiv 1710.10547 (without ties).
    """
    if not 0 < share <= 1:
        raise MethodError(f"share is in (0, 1], got {share}")
    first, second, flags = pair(a, b)
    if flags:
        return Measured(np.nan, flags)
    k = max(1, round(share * first.size))
    above_a, tied_a, weight_a = _highest(first, k)
    above_b, tied_b, weight_b = _highest(second, k)
    common = (
        float(np.count_nonzero(above_a & above_b))
        + weight_b * np.count_nonzero(above_a & tied_b)
        + weight_a * np.count_nonzero(tied_a & above_b)
        + min(weight_a, weight_b) * np.count_nonzero(tied_a & tied_b)
    )
    return Measured(float(common / k), flags)


def _highest(
    values: NDArray[np.float64], k: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], float]:
    """Voxels above the k-th highest value, those tied at it, and the weight of one of these."""
    border = np.partition(values, values.size - k, axis=None)[values.size - k]
    above, tied = values > border, values == border
    return above, tied, (k - np.count_nonzero(above)) / np.count_nonzero(tied)
