"""Where to look: the strongest region of a target and the peak in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from voxplain.records.explanation import Explanation
from voxplain.space.labelmap import BACKGROUND


@dataclass(frozen=True)
class Focus:
    """The voxel that a target's planes run through.

    Parameters
    ----------
    index
        Voxel on the image's grid.
    region
        The strongest region (largest share, background left out); None if no region has one.
    share
        Its share of the map's L1 norm; NaN without a region.
    reason
        What the voxel is, in words.
    """

    index: tuple[int, ...]
    region: str | None
    share: float
    reason: str


def is_divided(explanation: Explanation) -> bool:
    """Whether there are regions to compare; a classifier without any has the whole image."""
    return len(explanation.regions.region_names) > 1


def region_rows(explanation: Explanation, target: str) -> pd.DataFrame:
    """Rows of one target, channels summed, largest share first.

    Returns
    -------
    DataFrame
        ``region, share, mean, positive, negative, n_voxels``; of one channel also
        ``share_error`` if the table has standard errors.

    Raises
    ------
    TargetError
        If the table has no such target.
    """
    table = explanation.table
    rows = table.top(target, len(table.regions)).reset_index()
    own = table.frame[table.frame["target"] == target]
    if "share_error" in own.columns and own["channel"].nunique() == 1:
        rows["share_error"] = rows["region"].map(own.set_index("region")["share_error"])
    return rows


def own_region(explanation: Explanation, target: str) -> str | None:
    """Predicted region that a target is named after (``liver`` or ``class:liver``), if any."""
    if explanation.prediction is None:
        return None
    names = explanation.prediction.region_names
    for name in (target, target.partition(":")[2]):
        if name in names and name != BACKGROUND:
            return name
    return None


def focus(explanation: Explanation, target: str) -> Focus:
    """Find the peak of |a| in the target's strongest region.

    Without a map: the voxel of the region that is nearest to its centroid. Without a region on
    the image's grid: the peak of the whole map, else the middle of the image.

    Raises
    ------
    TargetError
        If the explanation has no such target.
    """
    rows = region_rows(explanation, target)
    known = [n for n in explanation.regions.region_names if n != BACKGROUND]
    if not is_divided(explanation):
        known = []
    rows = rows[rows["region"].isin(known) & (rows["share"] > 0)]
    kept = explanation.attributions.get(target)
    strength = None if kept is None else np.abs(kept.flat())
    shape = explanation.image.grid.shape
    if len(rows):
        region, share = str(rows["region"].iloc[0]), float(rows["share"].iloc[0])
        mask = explanation.regions.mask(region)
        if mask.any() and strength is not None:
            peak = np.argmax(np.where(mask, strength, -1.0))
            return Focus(_index(peak, shape), region, share, f"peak of |a| in {region}")
        if mask.any():
            points = np.argwhere(mask)
            middle = points[np.argmin(((points - points.mean(axis=0)) ** 2).sum(axis=1))]
            return Focus(tuple(middle.tolist()), region, share, f"middle of {region}")
    if strength is not None and strength.any():
        return Focus(_index(np.argmax(strength), shape), None, float("nan"), "peak of |a|")
    return Focus(tuple(n // 2 for n in shape), None, float("nan"), "middle of the image")


def _index(flat_index: np.intp, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(i) for i in np.unravel_index(flat_index, shape))
