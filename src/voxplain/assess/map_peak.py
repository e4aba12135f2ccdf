"""Whether a map shows anything at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, Measured, Metric

METRIC = Metric(
    name="map_peak",
    family="complexity",
    direction="none",
    unit="the map's",
    low=0.0,
    high=np.inf,
    summary="largest magnitude of the map",
    policy="always told; a map of one magnitude everywhere is flagged: it shows nothing",
    source="voxplain",
)


def map_peak(scores: NDArray[np.floating]) -> Measured:
    """Return the largest magnitude of a map.

    Parameters
    ----------
    scores
        (*shape) magnitudes, at least 0.
    """
    low, high = float(scores.min()), float(scores.max())
    if low == high:
        return Measured(high, (CONSTANT_MAP if high else EMPTY_MAP,))
    return Measured(high)
