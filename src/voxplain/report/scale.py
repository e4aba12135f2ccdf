"""Where the colours of maps and images end."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.records.attribution import Attribution
from voxplain.records.explanation import Explanation
from voxplain.report.ground import ground
from voxplain.space.volume import Volume

Scale = Literal["shared", "own"]

QUANTILE = 0.999


def limit(values: NDArray[np.floating[Any]]) -> float:
    """Value of the strongest colour of one map.

    The 99.9th percentile of |a| where the map is not zero (a few voxels would otherwise take
    all the colour), rounded up to two digits; 0 for a map of zeros.
    """
    strength = np.abs(values[values != 0])
    if strength.size == 0:
        return 0.0
    rank = min(strength.size - 1, math.floor(QUANTILE * strength.size))
    return _round_up(float(np.partition(strength, rank)[rank]))


def _round_up(value: float) -> float:
    """Round a positive number up to two significant digits."""
    exponent = math.floor(math.log10(value)) - 1
    return float(f"{math.ceil(value / 10.0**exponent * (1 - 1e-12))}e{exponent}")


def limits(explanation: Explanation, scale: Scale) -> dict[str, float]:
    """Colour limit of every kept map, by target; ``shared``: the largest, for all."""
    own = {name: limit(a.flat()) for name, a in explanation.attributions.items()}
    return dict.fromkeys(own, max(own.values(), default=0.0)) if scale == "shared" else own


def is_signed(result: Explanation | Attribution) -> bool:
    """Whether the colours of a result run to both sides of zero.

    Contributions always do; other maps if any value, or any region's sum of negative ones, is
    below zero.
    """
    if result.kind == "contribution":
        return True
    if isinstance(result, Attribution):
        return bool((result.values < 0).any())
    in_table = bool((result.table.frame["negative"] < 0).any())
    return in_table or any(map(is_signed, result.attributions.values()))


def is_hounsfield(image: Volume) -> bool:
    """Whether the first channel looks like CT: air far below and tissue above water."""
    low, high = float(image.data[0].min()), float(image.data[0].max())
    return image.grid.rank == 3 and -5000 < low < -500 and high > 100


def intensity_window(image: Volume) -> tuple[float, float]:
    """Intensities of black and white of what is drawn below a map (see `ground`).

    CT: −160 to 240 HU, the usual window of soft tissue. Else the 0.5th and 99.5th percentile.
    """
    if is_hounsfield(image):
        return -160.0, 240.0
    return span(ground(image))


def span(values: NDArray[np.floating[Any]]) -> tuple[float, float]:
    """0.5th and 99.5th percentile; one unit apart for constant values."""
    low, high = np.percentile(values, [0.5, 99.5]).tolist()
    return (low, high) if high > low else (low, low + 1.0)
