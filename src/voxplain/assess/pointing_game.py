"""Whether a map's highest voxel lies in a mask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.average_precision import divide, flags_of
from voxplain.errors import MethodError
from voxplain.records.metric import Measured, Metric
from voxplain.regions.distances import dilate_mm

METRIC = Metric(
    name="pointing_game",
    family="utility",
    direction="higher",
    unit="1",
    low=0.0,
    high=1.0,
    summary="whether the map's highest voxel lies in the mask; of tied ones, the share",
    policy="constant map: the prevalence; full mask: 1; empty mask: no value",
    source="Zhang et al. 2018, section 4.1",
)


def pointing_game(
    scores: NDArray[np.floating],
    mask: NDArray[np.bool_],
    valid: NDArray[np.bool_] | None = None,
    *,
    spacing: Sequence[float] | None = None,
    tolerance_mm: float = 0.0,
) -> Measured:
    """Return the share of the map's highest voxels that lie in the mask, or near it.

    Parameters
    ----------
    scores, mask, valid
        As in `voxplain.assess.average_precision.divide`, whose errors are raised.
    spacing
        In mm, one an axis; needed for a tolerance.
    tolerance_mm
        Largest distance to the mask of a voxel that still counts as in it, between centres.

    Returns
    -------
    Measured
        0 or 1; between them where several voxels share the highest value. Flags are of the mask
        itself, not of what the tolerance makes of it.

    Raises
    ------
    MethodError
        If the tolerance is negative, NaN or infinite, or comes without a spacing.

    Notes
    -----
    Zhang et al. allow 15 pixels around boxes; the default here is none. Quantus' PointingGame
    counts a hit if any one of the tied voxels lies in the mask, which a constant map always does.

    References
    ----------
    Zhang et al., "Top-down neural attention by excitation backprop", IJCV 126, 2018.
    """
    if not (0 <= tolerance_mm < np.inf):
        raise MethodError(f"tolerance_mm is finite and at least 0, got {tolerance_mm}")
    if tolerance_mm and spacing is None:
        raise MethodError("a tolerance in mm needs the spacing of the voxels; pass spacing")
    inside, outside = divide(scores, mask, valid)
    flags = flags_of(inside, outside)
    if not inside.size:
        return Measured(np.nan, flags)
    near = mask if valid is None else mask & valid
    if tolerance_mm and spacing is not None:
        near = dilate_mm(near, spacing, tolerance_mm)
    highest = scores == max(part.max() for part in (inside, outside) if part.size)
    if valid is not None:
        highest &= valid
    n_hits = np.count_nonzero(highest & near)
    return Measured(n_hits / np.count_nonzero(highest), flags)
