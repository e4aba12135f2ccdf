"""Structural similarity of two maps, 2D or 3D."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from skimage.metrics import structural_similarity

from voxplain.assess.effective_complexity import magnitudes
from voxplain.assess.map_peak import map_flags
from voxplain.errors import GridError, MethodError
from voxplain.records.metric import Measured, Metric

METRIC = Metric(
    name="ssim",
    family="agreement",
    direction="none",
    unit="1",
    low=-1.0,
    high=1.0,
    summary="Mean structural similarity of two maps, each divided by its largest value.",
    policy=(
        "Empty and constant maps: as computed, flagged, for where both maps are zero it is 1 "
        "however little they share."
    ),
    source="Wang et al. 2004, IEEE TIP 13, 600; as a criterion Arun et al. 2021, arXiv 2008.02766",
)


def ssim(a: ArrayLike, b: ArrayLike, *, data_range: float, window: int = 7) -> Measured:
    """Return the mean structural similarity over all windows that lie inside.

    A window has (2·μ_a·μ_b + C1)·(2·σ_ab + C2) / ((μ_a² + μ_b² + C1)·(σ_a² + σ_b² + C2)) with
    C1 = (0.01·data_range)², C2 = (0.03·data_range)², and σ over N − 1.

    Parameters
    ----------
    a, b
        (*shape), alike; compared as they are: see `normalised` and `map_ssim`.
    data_range
        Largest less smallest value that a map can have, above 0: 1 for `normalised` maps.
    window
        Edge of the window in voxels: odd, at least 3. Axes one voxel long are left out, so a
        volume of one slice gives what the slice gives; where another axis is shorter, the window
        is the largest odd one that fits it, along all axes.

    Returns
    -------
    Measured
        In [−1, 1], 1 for equal maps; flagged where a map is empty or constant.

    Raises
    ------
    GridError
        If the shapes differ.
    MethodError
        If a value is not finite, the range or the window is out of bounds, or no window of
        three voxels fits.

    Notes
    -----
    It rewards emptiness: wherever both maps are near zero (against the range) a window counts as
    1, so a map that is empty and one with a small blob are 0.997 alike. Read it beside
    `spearman` and `top_overlap`.

    Differs from Arun et al. in the range: theirs, never given, was 2 (see
    `voxplain.assess.legacy_map.legacy_ssim`). Cost: ten box filters. Memory: about 15 numbers a
    voxel.

    References
    ----------
    Wang et al. 2004, IEEE TIP 13, 600, eq. 13; uniform window and σ as scikit-image's defaults.
    """
    if not 0 < data_range < np.inf:
        raise MethodError(f"data_range is positive, got {data_range}")
    if window < 3 or window % 2 == 0:
        raise MethodError(f"window is odd and at least 3 voxels, got {window}")
    first, second, flags = pair(a, b)
    first, second = first.squeeze(), second.squeeze()
    shortest = min(first.shape, default=1)
    if shortest < 3:
        raise MethodError(
            f"a map needs 3 voxels along each axis longer than one, got {np.shape(a)}; compare "
            "it slice by slice, or with spearman"
        )
    fitting = min(window, shortest - 1 + shortest % 2)
    value = structural_similarity(first, second, win_size=fitting, data_range=data_range)
    return Measured(float(value), flags)


def map_ssim(a: ArrayLike, b: ArrayLike) -> Measured:
    """Return `ssim` of two `normalised` maps, data_range 1, window 7.

    Parameters
    ----------
    a, b
        (*shape) magnitudes, at least 0.

    Returns
    -------
    Measured
        In [−1, 1], 1 for maps alike up to their scale; flagged where a map is empty or constant.

    Raises
    ------
    GridError, MethodError
        As `ssim` and `normalised`.
    """
    if is_too_thin(a):
        return Measured(np.nan)
    return ssim(normalised(a), normalised(b), data_range=1.0)


def is_too_thin(values: ArrayLike) -> bool:
    """Whether an axis has two voxels, in which no window of `ssim` lies."""
    return 2 in np.shape(values)


def normalised(scores: ArrayLike) -> NDArray[np.float64]:
    """Return s / max s, in [0, 1]; a map that is zero everywhere stays so.

    Parameters
    ----------
    scores
        (*shape) magnitudes, at least 0.

    Returns
    -------
    array
        (*shape) float64; 0 stays 0, nothing is cut.

    Raises
    ------
    MethodError
        If a score is negative or not finite, or there is none.
    """
    values, _ = magnitudes(scores)
    peak = values.max()
    return values / peak if peak > 0 else np.zeros_like(values)


def pair(
    a: ArrayLike, b: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], tuple[str, ...]]:
    """Return two maps in float64, and the flags of both.

    Raises
    ------
    GridError
        If the shapes differ.
    MethodError
        If a value is not finite, or there is none.
    """
    first, second = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if first.shape != second.shape:
        raise GridError(
            f"two maps are compared voxel by voxel: shape {first.shape} against {second.shape}; "
            "make both on one grid"
        )
    return first, second, tuple(dict.fromkeys(map_flags(first) + map_flags(second)))
