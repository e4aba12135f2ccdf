"""Over which voxels a target sums: predicted, everywhere, a mask, one voxel, one instance."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import TargetError
from voxplain.regions.instances import instances
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample_labels


@dataclass(frozen=True)
class Predicted:
    """Voxels that the model gives to the class (Agg²Exp's ŷ_c).

    Parameters
    ----------
    hold
        True: the mask of the clean input is used throughout. False: the mask is taken anew at
        every noisy or interpolated input.
    """

    hold: bool = True

    def __str__(self) -> str:
        return "predicted" if self.hold else "predicted anew"


@dataclass(frozen=True)
class Everywhere:
    """Every voxel of the image."""

    def __str__(self) -> str:
        return "everywhere"


@dataclass(frozen=True, eq=False)
class Mask:
    """A given region, on any grid that overlaps the image.

    Parameters
    ----------
    labels
        Holds the region.
    region
        Name of the region; None: every voxel with a label other than background.
    name
        Word for it in tables.
    """

    labels: LabelMap
    region: str | None = None
    name: str = "mask"

    def __str__(self) -> str:
        return self.name if self.region is None else f"{self.name}:{self.region}"

    def on(self, grid: Grid) -> NDArray[np.bool_]:
        """Return the region as a mask on a grid (nearest voxel)."""
        there = resample_labels(self.labels, grid)
        mask = there.mask(self.region) if self.region else (there.layers != 0).any(axis=0)
        if not mask.any():
            raise TargetError(
                f"{self}: no voxel of this mask lies on the model's grid ({grid.describe()}); "
                "check that mask and image belong together and that the mask is not empty"
            )
        return np.asarray(mask)


@dataclass(frozen=True, eq=False)
class Placed:
    """A region on the model's own grid: nothing is resampled.

    Parameters
    ----------
    box
        In voxels of the model's grid.
    mask
        (*box.shape) truth values.
    name
        Word for it in tables.
    """

    box: Box
    mask: NDArray[np.bool_]
    name: str = "mask"

    def __str__(self) -> str:
        return self.name

    def on(self, grid: Grid) -> NDArray[np.bool_]:
        """Return the region as a mask on the model's grid."""
        whole = np.zeros(grid.shape, bool)
        whole[self.box.slices] = self.mask
        return whole


@dataclass(frozen=True)
class Voxel:
    """One voxel, by its index in the image file.

    Parameters
    ----------
    index
        2 or 3 integers, counted from 0 in the order of the file's axes.
    """

    index: tuple[int, ...]

    def __str__(self) -> str:
        return "voxel:" + ",".join(map(str, self.index))

    def on(self, grid: Grid, image_grid: Grid) -> NDArray[np.bool_]:
        """Return the voxel of the model's grid that holds the centre of the image's voxel."""
        if len(self.index) != image_grid.rank or any(
            not 0 <= i < n for i, n in zip(self.index, image_grid.shape, strict=False)
        ):
            raise TargetError(f"{self} is outside the image of shape {image_grid.shape}")
        place = np.rint(grid.to_index(image_grid.to_world(self.index))).astype(int)
        mask = np.zeros(grid.shape, dtype=bool)
        mask[tuple(np.clip(place, 0, np.asarray(grid.shape) - 1))] = True
        return mask


@dataclass(frozen=True)
class Instance:
    """One connected component of the predicted class.

    Parameters
    ----------
    number
        1 is the largest.
    connectivity
        1 (faces), 2 (and edges: 18 neighbours in 3D) or 3 (and corners).
    """

    number: int
    connectivity: int = 2

    def __str__(self) -> str:
        return f"instance:{self.number}"

    def of(self, predicted: NDArray[np.bool_], grid: Grid) -> NDArray[np.bool_]:
        """Return the mask of this instance of a predicted mask."""
        found = instances(predicted, grid, connectivity=min(self.connectivity, grid.rank))
        n = len(found.names) - 1
        if not 1 <= self.number <= n:
            raise TargetError(f"{self}: the predicted class has {n} instance(s), counted from 1")
        return found.mask(self.number)


Where = Predicted | Everywhere | Mask | Placed | Voxel | Instance
