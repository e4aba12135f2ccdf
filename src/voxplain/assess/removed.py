"""What random removals took away and what the targets lost by it: serves every method's maps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.attribution.maps import Maps
from voxplain.attribution.players import Players
from voxplain.errors import MethodError

_LEAST = 1e-6  # of the value: what float32 passes do not tell apart


@dataclass(frozen=True, eq=False)
class Removals:
    """What was removed, run by run, and what the targets lost.

    Parameters
    ----------
    drops
        (n_runs, n_targets) T(x) − T(x with the parts filled).
    anew
        (n_runs, n_targets) the same with the predicted mask taken anew; None if not asked for.
    clean
        (n_targets,) T(x).
    removed
        (n_runs, n_removed) numbers of the parts; of voxels: places in the flat image.
    cells
        (*image shape) which row of `parts` a voxel belongs to; None where parts are voxels.
    parts
        (n_cells, n_layers) parts that hold the voxels of a cell, −1 for none.
    change
        (n_channels, *image shape) x − fill.
    """

    drops: NDArray[np.float64]
    anew: NDArray[np.float64] | None
    clean: NDArray[np.float64]
    removed: NDArray[np.integer]
    cells: NDArray[np.int64] | None
    parts: NDArray[np.int64]
    change: NDArray[np.floating]

    def least(self, target: int) -> float:
        """Drop below which nothing changed: 1e-6 of the value."""
        return _LEAST * abs(float(self.clean[target]))

    def mask(self, run: int) -> NDArray[np.bool_]:
        """Return the voxels removed in a run, (*image shape)."""
        shape = self.change.shape[1:]
        if self.cells is None:
            return flat_mask(shape, self.removed[run])
        return np.asarray(self._is_gone()[run][self.cells])

    def _is_gone(self) -> NDArray[np.bool_]:
        """Cells removed in each run, (n_runs, n_cells)."""
        return np.array([np.isin(self.parts, row).any(axis=1) for row in self.removed])

    def sums(self, maps: Maps, *, times_change: bool = False) -> NDArray[np.float64]:
        """Sum each target's signed attributions over the voxels removed, (n_runs, n_targets).

        Parameters
        ----------
        maps
            Of the same targets and image; all channels of a voxel are removed together. One
            map for all channels counts once.
        times_change
            Multiply by x − fill first: what a sensitivity (unit of the target per intensity)
            says of the drop, IᵀΦ of Yeh et al. One map for all channels then meets the sum
            of their changes.

        Raises
        ------
        MethodError
            If the maps are of another number of targets or another image.
        """
        shape = self.change.shape[1:]
        if (len(maps.values), *maps.values.shape[2:]) != (len(self.clean), *shape):
            raise MethodError(
                f"maps of {len(self.clean)} targets on an image of shape {shape} were expected, "
                f"got {len(maps.values)} on {maps.values.shape[2:]}; compute them for this question"
            )
        found = np.empty((len(self.removed), len(self.clean)))
        gone = None if self.cells is None else self._is_gone()
        for t, values in enumerate(maps.values):
            each = values * self.change if times_change else values
            flat = each.sum(axis=0, dtype=np.float64).ravel()
            if self.cells is None or gone is None:
                found[:, t] = [flat[row].sum() for row in self.removed]
            else:
                cells = np.bincount(self.cells.ravel(), flat, minlength=len(self.parts))
                found[:, t] = [cells[row].sum() for row in gone]
        return found


def flat_mask(shape: tuple[int, ...], places: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Return the mask of places in the flat image."""
    mask = np.zeros(shape, bool)
    mask.ravel()[places] = True
    return mask


def cells_of(players: Players) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Group voxels that the same parts hold: each voxel's cell, and parts (n_cells, n_layers)."""
    layers = players.index[:, 0].astype(np.int64)
    flat = layers.reshape(len(layers), -1)
    code = np.zeros(flat.shape[1], np.int64)
    for layer in flat:  # numbered afresh, so that many layers do not overflow
        code = np.unique(code * (len(players) + 1) + layer + 1, return_inverse=True)[1]
    first = np.unique(code, return_index=True)[1]
    return code.reshape(layers.shape[1:]), np.ascontiguousarray(flat[:, first].T)
