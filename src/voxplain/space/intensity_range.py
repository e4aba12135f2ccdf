"""Whether the intensities of an image are those that a window was made for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST_COMMON = 0.02
"""Least share of what both ranges span together that they have in common."""


def foreign_range(
    values: NDArray[np.floating[Any]], low: float, high: float
) -> tuple[float, float] | None:
    """Return the range of intensities if it hardly meets the window, else None.

    The range is the 1st to the 99th percentile of what lies above the lowest value (which is
    background); it is foreign if common/span < `LEAST_COMMON`, with the length that range and
    window have in common, and the length that they span together.

    Parameters
    ----------
    values
        Intensities of any shape. If they span nothing, that one value must lie in the window.
    low, high
        Ends of the window.

    Notes
    -----
    To overlap at all is not enough: intensities in [0, 1] lie inside of most windows of HU.
    """
    above = values[values > values.min()] if values.size else values
    kept = above if above.size else values
    if not kept.size:
        return None
    first, last = np.percentile(kept.astype(np.float64), [1, 99]).tolist()
    if first == last:
        return None if low <= first <= high else (first, last)
    common, span = min(last, high) - max(first, low), max(last, high) - min(first, low)
    return None if common >= LEAST_COMMON * span else (first, last)
