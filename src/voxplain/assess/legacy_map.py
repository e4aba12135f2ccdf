"""Maps as Arun et al. displayed and compared them: of use to repeat their numbers, no more."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.assess.map_peak import map_flags
from voxplain.assess.ssim import is_too_thin, pair, ssim
from voxplain.errors import MethodError
from voxplain.records.metric import CONSTANT_MAP, Measured, Metric

METRIC = Metric(
    name="legacy_ssim",
    family="agreement",
    direction="none",
    unit="1",
    low=-1.0,
    high=1.0,
    summary=(
        "Structural similarity of two maps cut at their 99th percentile, with a data range of 2: "
        "too high, as published."
    ),
    policy=(
        "Map with one value in 99 % of its voxels (also an empty or constant one): not defined."
    ),
    source="Arun et al. 2021, arXiv 2008.02766, as in their scripts",
)


def legacy_map(values: ArrayLike) -> NDArray[np.float64]:
    """Return min(max((V − min V)/(P − min V), 0), 1), V = Σ_channels |a|, P its 99th percentile.

    Parameters
    ----------
    values
        (n_channels, *shape), signed or not.

    Returns
    -------
    array
        (*shape) in [0, 1]; one voxel in a hundred is tied at 1. Where P = min V, the quotient is
        0/0: NaN at the lowest voxels, and 1 above them.

    Raises
    ------
    MethodError
        If a value is not finite, or there is no channel or voxel.

    Notes
    -----
    What the `saliency` package calls VisualizeImageGrayscale, for any number of axes. The
    percentile is interpolated linearly.

    References
    ----------
    Arun et al. 2021, arXiv 2008.02766, scripts; PAIR ``saliency``, ``visualization``.
    """
    given = np.asarray(values, np.float64)
    if given.ndim < 2:
        raise MethodError(f"maps are (n_channels, *shape), got the shape {given.shape}")
    map_flags(given)  # refuses what is not finite
    summed = np.abs(given).sum(axis=0)
    low, high = summed.min(), np.percentile(summed, 99)
    with np.errstate(invalid="ignore", divide="ignore"):  # 0/0 and x/0 are what is told above
        return np.asarray(np.clip((summed - low) / (high - low), 0.0, 1.0))


def legacy_ssim(a: ArrayLike, b: ArrayLike) -> Measured:
    """Return `ssim` of two `legacy_map`, data_range 2 and window 7.

    Parameters
    ----------
    a, b
        (*shape) magnitudes summed over channels.

    Returns
    -------
    Measured
        In [−1, 1]; NaN and a flag where `legacy_map` has a NaN.

    Raises
    ------
    GridError, MethodError
        As `ssim`.

    Notes
    -----
    A range of 2 for maps in [0, 1] makes C1 and C2 four times as large and unlike maps more
    alike: uniform noise has 0.021 instead of 0.005 on average. The published range came from the
    type of the numbers, as scikit-image then took it.

    Differs from the scripts in that they drop a NaN without a word, and compare Guided Grad-CAM
    without the percentile. On volumes, where there is no published number, the window is 7³.

    References
    ----------
    Arun et al. 2021, arXiv 2008.02766, scripts.
    """
    first, second, flags = pair(a, b)
    if is_too_thin(first):
        return Measured(np.nan)
    shown = [legacy_map(values[None]) for values in (first, second)]
    if any(np.isnan(values).any() for values in shown):
        return Measured(np.nan, flags or (CONSTANT_MAP,))
    return ssim(*shown, data_range=2.0)
