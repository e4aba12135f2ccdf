"""Planes through an image as a reader expects them: upright, and with their sides named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import GridError
from voxplain.space.grid import Grid

# name: world axis that is cut, world axis downwards, world axis to the right of the picture.
# Both of the latter run against RAS+, so superior or anterior is up, and the patient's right
# (in a sagittal plane: anterior) is on the left: the radiological convention.
_CUTS = {"axial": (2, 1, 0), "coronal": (1, 2, 0), "sagittal": (0, 2, 1)}
_ENDS = (("R", "L"), ("A", "P"), ("S", "I"))


@dataclass(frozen=True)
class Plane:
    """One upright picture out of an array on a grid.

    Parameters
    ----------
    name
        ``axial``, ``coronal``, ``sagittal``; ``picture`` for a 2D image.
    grid
        Grid of the arrays that are cut.
    index
        Voxel the plane runs through, in the grid's own index order.

    Raises
    ------
    GridError
        If the name does not fit the grid's rank, or the index lies outside.
    """

    name: str
    grid: Grid
    index: tuple[int, ...]

    def __post_init__(self) -> None:
        known = tuple(_CUTS) if self.grid.rank == 3 else ("picture",)
        if self.name not in known:
            raise GridError(
                f"a {self.grid.rank}D image has the planes {', '.join(known)}, not {self.name!r}"
            )
        if len(self.index) != self.grid.rank or not all(
            0 <= i < n for i, n in zip(self.index, self.grid.shape, strict=True)
        ):
            raise GridError(f"voxel {self.index} lies outside an image of shape {self.grid.shape}")

    def _cut(self) -> tuple[int, tuple[int, int], tuple[int, int]]:
        """Array axis that is cut, and (array axis, direction) downwards and to the right."""
        own = self.grid.orientation
        axes = [next(i for i, c in enumerate(own) if c in pair) for pair in ("LR", "PA", "IS")]
        signs = [1 if own[axis] in "RAS" else -1 for axis in axes]
        cut, down, right = _CUTS[self.name]
        return axes[cut], (axes[down], -signs[down]), (axes[right], -signs[right])

    def take(self, array: NDArray[Any]) -> NDArray[Any]:
        """Picture (rows from the top, columns from the left) of an array on the grid."""
        if self.grid.rank == 2:
            return array
        cut, (down, down_sign), (right, right_sign) = self._cut()
        picture = np.take(array, self.index[cut], axis=cut)
        if down > right:
            picture = picture.T
        return np.asarray(picture[::down_sign, ::right_sign])

    def pixels(self, array: NDArray[Any], most: int = 192) -> NDArray[Any]:
        """Picture in square pixels of the nearest voxels' values.

        Parameters
        ----------
        array
            (*grid.shape).
        most
            Pixels of the longer side at most; fewer where the voxels are larger.
        """
        cut = self.take(array)
        height, width = self.size_mm
        sides = (height / cut.shape[0], width / cut.shape[1])
        step = max(min(sides), max(height, width) / most)
        rows, columns = (
            np.minimum(np.arange(0.5, max(1, round(mm / step))) * step / side, n - 1).astype(int)
            for mm, side, n in zip((height, width), sides, cut.shape, strict=True)
        )
        return np.asarray(cut[np.ix_(rows, columns)])

    @property
    def size_mm(self) -> tuple[float, float]:
        """Height and width of the picture in mm (2D: as the grid's spacing says)."""
        shape, spacing = self.grid.shape, self.grid.spacing
        if self.grid.rank == 2:
            return shape[0] * spacing[0], shape[1] * spacing[1]
        _, (down, _), (right, _) = self._cut()
        return shape[down] * spacing[down], shape[right] * spacing[right]

    @property
    def ends(self) -> tuple[str, str, str, str] | None:
        """Letters of the top, right, bottom and left side; None in 2D, which has no patient."""
        if self.grid.rank == 2:
            return None
        _, down, right = _CUTS[self.name]
        (top, bottom), (left, right_end) = _ENDS[down], _ENDS[right]
        return top, right_end, bottom, left

    @property
    def title(self) -> str:
        """Name and position, e.g. ``axial, S 41.5 mm``."""
        if self.grid.rank == 2:
            return "image"
        axis = _CUTS[self.name][0]
        at = float(self.grid.to_world(self.index)[axis])
        return f"{self.name}, {_ENDS[axis][0 if at >= 0 else 1]} {abs(at):.1f} mm"


def planes_through(grid: Grid, index: tuple[int, ...]) -> tuple[Plane, ...]:
    """Axial, coronal and sagittal plane through one voxel; the whole image in 2D."""
    names = tuple(_CUTS) if grid.rank == 3 else ("picture",)
    return tuple(Plane(name, grid, index) for name in names)


def obliquity_degrees(grid: Grid) -> float:
    """Largest angle between an array axis and the anatomical axis it is nearest to."""
    if grid.rank == 2:
        return 0.0
    from nibabel.affines import obliquity

    return float(np.degrees(obliquity(grid.affine)).max())
