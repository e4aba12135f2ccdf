"""One plane of each map, small, for the report's grids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.case_scores import CaseScores
from voxplain.space.grid import Grid

Floats = NDArray[np.floating[Any]]

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


class PictureBook:
    """Planes of one case and model."""

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
        """Show the image, and true masks, in the plane of each target."""
        for t, target in enumerate(scores.question.targets):
            plane = self.plane(scores, t)
            image = scores.question.pipeline.image.data[0]
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
        pixels, start, stop = picture(plane, values, low)
        key = {**self._key, "seed": seed, "stage": stage, "method": method, "target": target}
        digest = hashlib.sha256(repr(sorted(key.items())).encode()).hexdigest()[:20]
        self.planes[f"plane:{digest}"] = pixels
        self.rows.append(picture_row(key, plane, f"plane:{digest}", start, stop))
