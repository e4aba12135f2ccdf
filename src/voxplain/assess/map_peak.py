"""Whether a map shows anything at all."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import MethodError
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
    return Measured(float(scores.max()), map_flags(scores))


def map_flags(values: NDArray[np.floating]) -> tuple[str, ...]:
    """Say whether a map (*shape) is zero everywhere, or else has one value everywhere.

    Raises
    ------
    MethodError
        If a value is not finite, or there is none.
    """
    if values.size == 0:
        raise MethodError(f"a map has at least one voxel, got the shape {values.shape}")
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        raise MethodError(
            f"values of a map are finite, got {low} … {high}; look for such values in the image "
            "and in the model's output"
        )
    if low < high:
        return ()
    return (EMPTY_MAP,) if high == 0 else (CONSTANT_MAP,)
