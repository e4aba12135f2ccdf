"""How much of a map lies in the body."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.records.metric import EMPTY_MAP, EMPTY_MASK, Measured, Metric

METRIC = Metric(
    name="energy_in_body",
    family="utility",
    direction="higher",
    unit="1",
    low=0.0,
    high=1.0,
    summary="share of the map's magnitudes that lies in the body",
    policy="an empty map has no value; no row for images without air around the body",
    source="voxplain",
)


def energy_in_body(scores: NDArray[np.floating], body: NDArray[np.bool_]) -> Measured:
    """Return Σ of the map over the body, over its sum.

    Parameters
    ----------
    scores
        (*shape) magnitudes, at least 0.
    body
        (*shape) voxels of the body (see `voxplain.regions.tissue`).

    Returns
    -------
    Measured
        0 to 1. A map that is spread evenly has the body's share of the voxels.
    """
    total = float(scores.sum(dtype=np.float64))
    if not body.any():
        return Measured(np.nan, (EMPTY_MASK,))
    if total == 0:
        return Measured(np.nan, (EMPTY_MAP,))
    return Measured(float(scores[body].sum(dtype=np.float64)) / total)
