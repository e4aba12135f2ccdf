"""Healthy regions with the shapes of lesions, to compare lesions with."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import GridError, LabelError
from voxplain.regions.distances import dilate_mm
from voxplain.regions.lesion import Lesion
from voxplain.space.box import Box
from voxplain.space.grid import Grid

_BALL_MM3 = 100.0
_TRIES = 1024
_SLAB = 16


def control_regions(
    lesions: Sequence[Lesion],
    tissue: NDArray[np.bool_],
    avoid: NDArray[np.bool_],
    grid: Grid,
    *,
    n: int,
    margin_mm: float,
    rng: np.random.Generator,
) -> list[Lesion]:
    """Put the shapes of lesions at random places of healthy tissue.

    A place is allowed if all voxels of the shape are in the tissue, farther than the margin from
    everything to avoid, and in no other control region; of all allowed places each is as
    probable as any other. Shapes are moved by whole voxels, neither turned nor flipped.

    Parameters
    ----------
    lesions
        On `grid`. Every shape is used once in random order, then every shape again. Without any,
        all regions are balls of 100 mm³ (2D: discs of 100 mm²).
    tissue
        (*grid.shape) where they may lie.
    avoid
        (*grid.shape) what they keep away from: all lesions, predicted and true.
    grid
        Where the voxels lie.
    n
        Number of regions.
    margin_mm
        A voxel of a region is farther than this from every voxel of `avoid`, at least 0.
    rng
        Draws shapes and places.

    Returns
    -------
    list of Lesion
        n regions ``C1``, ``C2``, …, largest first, of type ``TN``. `overlap` is NaN.

    Raises
    ------
    GridError
        If a mask is not of the grid's shape.
    LabelError
        If a setting is out of range, or fewer than n regions fit.

    Notes
    -----
    A shape that fits nowhere is passed over, and the next takes its turn: where lesions are too
    large for the healthy tissue that is left, the control regions are smaller than they.
    """
    for name, mask in (("tissue", tissue), ("avoid", avoid)):
        if mask.shape != grid.shape:
            raise GridError(
                f"{name} must have the shape of the grid {grid.shape}, got {mask.shape}"
            )
    if n < 0 or not margin_mm >= 0:
        raise LabelError(f"n and margin_mm are at least 0, got {n} and {margin_mm}")
    free = tissue.astype(bool) & ~dilate_mm(avoid, grid.spacing, margin_mm)
    shapes = [lesion.mask for lesion in lesions] or [_ball(grid)]
    n_free = int(np.count_nonzero(free))
    placed: list[tuple[Box, NDArray[np.bool_]]] = []
    waiting: list[int] = []
    able = list(range(len(shapes)))
    room = _Room(free)
    while len(placed) < n and able:
        if not waiting:
            waiting = rng.permutation(able).tolist()
        chosen = waiting.pop()
        box = room.place(shapes[chosen], rng)
        if box is None:  # nor will it later: there is only less room
            able.remove(chosen)
        else:
            placed.append((box, shapes[chosen]))
    if len(placed) < n:
        n_tissue = int(np.count_nonzero(tissue))
        raise LabelError(
            f"{n} control regions were asked for and {len(placed)} fit: {n_free} of {n_tissue} "
            f"voxels of tissue are farther than {margin_mm:g} mm from every lesion; ask for "
            "fewer, lower the margin, or give more tissue"
        )
    placed.sort(key=lambda one: -np.count_nonzero(one[1]))
    return [Lesion(f"C{i}", "TN", box, mask) for i, (box, mask) in enumerate(placed, 1)]


def _ball(grid: Grid) -> NDArray[np.bool_]:
    """Voxels whose centres lie in a ball of `_BALL_MM3` about the middle one."""
    if grid.rank == 3:
        radius = (3 * _BALL_MM3 / (4 * math.pi)) ** (1 / 3)
    else:
        radius = math.sqrt(_BALL_MM3 / math.pi)
    reach = [np.arange(-int(radius / s), int(radius / s) + 1) * s for s in grid.spacing]
    squares = sum(np.square(part) for part in np.meshgrid(*reach, indexing="ij", sparse=True))
    return np.asarray(squares <= radius**2)


class _Room:
    """Voxels that are free, where shapes are placed one after another."""

    def __init__(self, free: NDArray[np.bool_]) -> None:
        self._free = free
        self._box = Box.around(free)

    def place(self, shape: NDArray[np.bool_], rng: np.random.Generator) -> Box | None:
        """Take one of the places where a shape fits, all equally probable; None if none."""
        if self._box is None:
            return None
        low = np.asarray(self._box.start)
        high = np.asarray(self._box.stop) - shape.shape + 1
        if (high <= low).any():
            return None
        voxels = np.argwhere(shape)
        # from the outside inwards: the outermost voxels rule out most places
        far = np.square(voxels - voxels.mean(axis=0)).sum(axis=1)
        voxels = voxels[np.argsort(-far, kind="stable")]
        # The first drawn place that fits is as probable as any; all are looked through only
        # where few fit.
        able = self._fitting(rng.integers(low, high, (_TRIES, shape.ndim)), voxels)[:1]
        if not len(able):
            able = self._all_fitting(low, high, voxels)
            if not len(able):
                return None
            able = able[rng.integers(len(able), size=1)]
        self._free[tuple((voxels + able).T)] = False
        return Box.whole(shape.shape).shift(able[0].tolist())

    def _all_fitting(
        self, low: NDArray[np.int64], high: NDArray[np.int64], voxels: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """All starts from low to high from where all voxels are free; a slab at a time."""
        found = []
        for first in range(low[0], high[0], _SLAB):
            start = np.array([first, *low[1:]])
            stop = np.array([min(first + _SLAB, high[0]), *high[1:]])
            near = Box(tuple(start + voxels[0]), tuple(stop + voxels[0]))
            found.append(self._fitting(np.argwhere(self._free[near.slices]) + start, voxels))
        return np.concatenate(found)

    def _fitting(self, starts: NDArray[np.int64], voxels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Those starts (m, rank), in order, from where all voxels are free."""
        for voxel in voxels:
            if not len(starts):
                break
            starts = starts[self._free[tuple((starts + voxel).T)]]
        return starts
