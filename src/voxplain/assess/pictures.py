"""One plane of each map, small, for the report's grids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.space.grid import Grid

_MOST = 192  # pixels of the longer side


@dataclass(frozen=True)
class Plane:
    """A plane of an image: all of it in 2D.

    Parameters
    ----------
    axis
        Array axis that it is perpendicular to; −1 for a 2D image.
    index
        Place along it.
    """

    axis: int
    index: int

    def of(self, values: NDArray[Any]) -> NDArray[Any]:
        """Cut the plane from (*shape), every so many voxels where it is large."""
        plane = values if self.axis < 0 else np.take(values, self.index, axis=self.axis)
        step = -(-max(plane.shape) // _MOST)
        return np.asarray(plane[::step, ::step])


def plane_through(mask: NDArray[np.bool_], grid: Grid) -> Plane:
    """Return the axial plane with most voxels of a mask; the middle one of an empty mask.

    Parameters
    ----------
    mask
        (*grid.shape).
    grid
        Its last row of directions tells which axis runs from feet to head.
    """
    if grid.rank == 2:
        return Plane(-1, 0)
    axis = int(np.abs(grid.affine[2, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)).argmax())
    counts = mask.sum(axis=tuple(a for a in range(3) if a != axis))
    middle = (mask.shape[axis] - 1) // 2
    return Plane(axis, int(counts.argmax()) if counts.any() else middle)


def picture(
    plane: Plane, values: NDArray[np.floating], low: float | None = None
) -> tuple[NDArray[np.uint8], float, float]:
    """Return pixels 0 … 255 of a plane and the values that 0 and 255 stand for.

    Parameters
    ----------
    plane
        Which.
    values
        (*shape); 255 is the largest of the whole volume.
    low
        What 0 stands for; None: the smallest of the whole volume.
    """
    start = float(values.min(initial=np.inf)) if low is None else low
    stop = float(values.max(initial=start))
    scaled = (plane.of(values) - start) / (stop - start if stop > start else 1.0)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8), start, stop


def picture_row(
    key: Mapping[str, Any], plane: Plane, file: str, low: float, high: float
) -> dict[str, Any]:
    """Row of the table `PICTURES`; `key` has case, model, seed, stage, method, target."""
    return {**key, "axis": plane.axis, "index": plane.index, "low": low, "high": high, "file": file}
