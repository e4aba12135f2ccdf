"""Repaired slices put back where they were cut, and from there onto the image's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.counterfactual.cut import place
from voxplain.counterfactual.preparation import Cut
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample, resample_labels
from voxplain.space.volume import Volume


class Stack:
    """Collects what slices give, on the grid that they are cut from.

    Parameters
    ----------
    grid
        Of the cuts' planes. Where no slice is put, the difference is 0 and nothing is in the
        mask.
    keeps_pictures
        Also collect the pictures' intensities.
    """

    def __init__(self, grid: Grid, *, keeps_pictures: bool) -> None:
        self.grid = grid
        self._difference = np.zeros(grid.shape, np.float32)
        self._mask = np.zeros(grid.shape, np.uint8)
        kept = grid.shape if keeps_pictures else ()
        self._intensities, self._known = np.zeros(kept, np.float32), np.zeros(kept, np.uint8)
        self._keeps_pictures = keeps_pictures

    def add(
        self,
        cut: Cut,
        difference: NDArray[np.float32],
        mask: NDArray[np.bool_],
        intensities: NDArray[np.float32],
    ) -> int:
        """Put one slice back.

        Parameters
        ----------
        cut
            Where it is from.
        difference, intensities
            Of the picture (rows, columns); brought back linearly.
        mask
            Of the picture; a pixel of the slice is in it from where half of the mask, brought
            back linearly, is passed.

        Returns
        -------
        int
            Pixels of the slice that are in the mask.
        """
        inside = _half(cut.fit.back(cut.inside.astype(np.float32)))
        own = _half(cut.fit.back(mask.astype(np.float32))) & inside
        place(cut.plane, self._difference, cut.fit.back(difference).astype(np.float32))
        place(cut.plane, self._mask, own.astype(np.uint8))
        if self._keeps_pictures:
            place(cut.plane, self._intensities, cut.fit.back(intensities).astype(np.float32))
            place(cut.plane, self._known, inside.astype(np.uint8))
        return int(own.sum())

    def difference(self, grid: Grid) -> NDArray[np.float32]:
        """Return the signed difference on another grid, linear; 0 outside of this one."""
        return self._resampled(self._difference, grid)

    def pictures(self, grid: Grid) -> NDArray[np.float32]:
        """Return the pictures' intensities on another grid, linear; NaN where there is none."""
        known = self._labels(self._known, grid)
        return np.where(known, self._resampled(self._intensities, grid), np.float32(np.nan))

    def mask(self, grid: Grid) -> NDArray[np.bool_]:
        """Return the mask on another grid, nearest voxel."""
        return self._labels(self._mask, grid)

    def _resampled(self, values: NDArray[np.float32], grid: Grid) -> NDArray[np.float32]:
        if self.grid == grid:
            return values
        moved = resample(Volume(values[None], self.grid), grid, fill=0.0).data[0]
        return np.asarray(moved, np.float32)

    def _labels(self, mask: NDArray[np.uint8], grid: Grid) -> NDArray[np.bool_]:
        if self.grid == grid:
            return mask.astype(bool)
        return np.asarray(resample_labels(LabelMap.of(mask, self.grid), grid).layers[0] > 0)


def _half(values: NDArray[np.floating]) -> NDArray[np.bool_]:
    return np.asarray(values > 0.5)
