"""One plane of each map, upright and small, for the report's grids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.case_scores import CaseScores
from voxplain.space.grid import Grid
from voxplain.space.plane import Plane

Floats = NDArray[np.floating[Any]]

_WHITE = 99.5


def plane_through(mask: NDArray[np.bool_], grid: Grid) -> Plane:
    """Return the axial plane with most voxels of a mask, all of a picture.

    Parameters
    ----------
    mask
        (*grid.shape); through the middle if it is empty.
    grid
        Tells which axis runs from feet to head.
    """
    index = [(n - 1) // 2 for n in grid.shape]
    if grid.rank == 2:
        return Plane("picture", grid, tuple(index))
    axis = next(i for i, letter in enumerate(grid.orientation) if letter in "IS")
    counts = mask.sum(axis=tuple(a for a in range(3) if a != axis))
    if counts.any():
        index[axis] = int(counts.argmax())
    return Plane("axial", grid, tuple(index))


def picture(
    plane: Plane, values: Floats, low: float | None = None
) -> tuple[NDArray[np.uint8], float, float]:
    """Return pixels 0 … 255 of a plane and the values that 0 and 255 stand for.

    Parameters
    ----------
    plane
        Which.
    values
        (*shape); 255 is the 99.5th percentile of the plane, or its largest value where that is
        not above `low`: one voxel of the volume does not make all others black.
    low
        What 0 stands for; None: the smallest of the plane.
    """
    cut = plane.pixels(values)
    start = float(cut.min(initial=np.inf)) if low is None else low
    stop = float(np.percentile(cut, _WHITE))
    if stop <= start:
        stop = float(cut.max(initial=start))
    scaled = (cut - start) / (stop - start if stop > start else 1.0)
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8), start, stop


class PictureBook:
    """Planes of one case and model.

    Parameters
    ----------
    key
        Case and model of the rows.
    """

    def __init__(self, key: Mapping[str, Any]) -> None:
        self._key = key
        self.rows: list[dict[str, Any]] = []
        self.planes: dict[str, NDArray[np.uint8]] = {}

    def plane(self, scores: CaseScores, t: int) -> Plane:
        """Plane in which a target is shown: through the truth, else what is predicted."""
        grid = scores.question.pipeline.image.grid
        masks = [one for one in (scores.truths[t], scores.predicted[t]) if one is not None]
        filled = [one for one in masks if one.any()]
        return plane_through(filled[0] if filled else np.zeros(grid.shape, np.bool_), grid)

    def add_image(self, scores: CaseScores) -> None:
        """Show the image, and true and predicted masks, in the plane of each target."""
        image = scores.question.pipeline.image.data[0]
        for t, target in enumerate(scores.question.targets):
            plane = self.plane(scores, t)
            self.put(plane, target.name, "image", 0, "", image, low=None)
            for stage, mask in (("truth", scores.truths[t]), ("prediction", scores.predicted[t])):
                if mask is not None:
                    self.put(plane, target.name, stage, 0, "", mask.astype(np.float32))

    def add(
        self, scores: CaseScores, t: int, stage: str, seed: int, method: str, values: Floats
    ) -> None:
        """Show one map of magnitudes."""
        name = scores.question.targets[t].name
        self.put(self.plane(scores, t), name, stage, seed, method, values)

    def put(
        self, plane: Plane, target: str, stage: str, seed: int, method: str, values: Floats,
        *, low: float | None = 0.0,
    ) -> None:  # fmt: skip
        """Keep a plane."""
        shown, start, stop = picture(plane, values, low)
        key = {**self._key, "seed": seed, "stage": stage, "method": method, "target": target}
        digest = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:20]
        file = f"plane:{digest}"
        self.planes[file] = shown
        axis = _axis(plane)
        index = plane.index[axis] if axis >= 0 else 0
        self.rows.append(
            {**key, "axis": axis, "index": index, "low": start, "high": stop, "file": file}
        )


def _axis(plane: Plane) -> int:
    """Array axis that an axial plane cuts; −1 of a picture."""
    if plane.grid.rank == 2:
        return -1
    return next(i for i, letter in enumerate(plane.grid.orientation) if letter in "IS")
