"""What is painted: intensities and labels of a patient's points."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.demo.shapes import Floats

STRUCTURES: tuple[str, ...] = (
    "lung_right",
    "lung_left",
    "trachea",
    "heart",
    "aorta",
    "esophagus",
    "vertebrae",
    "spinal_cord",
    "ribs",
    "sternum",
    "scapulae",
    "autochthon",
    "liver",
    "spleen",
    "stomach",
    "nodule",
)
"""Names of the labels 1, 2, … of a synthetic patient."""

AIR = -1000.0


class Canvas:
    """Intensities and labels of points, painted solid over solid with soft edges.

    Parameters
    ----------
    n_points
        Number of points.
    edge_mm
        Width over which two intensities blend, about one voxel: the partial volume effect.
    """

    def __init__(self, n_points: int, edge_mm: float) -> None:
        self.hu: Floats = np.full(n_points, AIR, np.float32)
        self.labels: NDArray[np.uint8] = np.zeros(n_points, np.uint8)
        self.edge_mm = edge_mm

    def paint(self, distance: Floats, hu: float | Floats, label: str | None = None) -> None:
        """Cover a solid with an intensity; it becomes `label`, or none of the structures."""
        self.tint(distance, hu)
        self.labels[distance < 0] = 0 if label is None else STRUCTURES.index(label) + 1

    def tint(self, distance: Floats, hu: float | Floats) -> None:
        """Cover a solid with an intensity and leave the labels as they are."""
        share = np.clip(0.5 - distance / self.edge_mm, 0, 1)
        self.hu += share * (np.asarray(hu, np.float32) - self.hu)
