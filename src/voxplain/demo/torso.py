"""Outlines of the body and of its rib cage."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.demo.shapes import Floats

CAGE_POWER = 2.3
"""Exponent of the rib cage's superelliptic sections."""


def cage_axes(z: NDArray[Any]) -> tuple[Floats, Floats, Floats]:
    """Half width, half depth and y of the centre of the rib cage at heights `z`, in mm."""
    up = np.clip(z / 136, 0, 1)
    narrow = np.sqrt(np.maximum(1 - up**2.8, 0.01)) * (1 - 0.05 * np.clip(-z / 140, 0, 1) ** 2)
    return 130 * narrow, 88 * np.maximum(narrow, 0.62 * (up > 0)) ** 0.8, -10 * up**2


def cage_distance(points: Floats) -> Floats:
    """Approximate signed distance to the surface that the ribs lie on."""
    x, y, z = points.T
    a, b, centre = cage_axes(z)
    level = (np.abs(x / a) ** CAGE_POWER + np.abs((y - centre) / b) ** CAGE_POWER) ** (
        1 / CAGE_POWER
    )
    return np.asarray(np.maximum((level - 1) * np.minimum(a, b), z - 126), points.dtype)


def body_distance(points: Floats) -> Floats:
    """Approximate signed distance to the skin of a body of average girth."""
    x, y, z = points.T
    up = np.clip((z - 70) / 80, 0, 1)
    a = 162 + 4 * np.clip(z / 70, 0, 1) - 58 * up**1.8
    b = 113 - 26 * up**1.5
    level = (np.abs(x / a) ** 2.5 + np.abs((y + 1) / b) ** 2.5) ** (1 / 2.5)
    return np.asarray((level - 1) * b, points.dtype)
