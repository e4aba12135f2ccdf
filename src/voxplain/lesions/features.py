"""Numbers of one lesion's saliency map: peaks, means inside and in shells, shares of channels."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.regions.distances import around, shells
from voxplain.regions.lesion import Lesion
from voxplain.space.box import Box
from voxplain.space.grid import Grid

Row = dict[str, Any]


def map_features(
    values: NDArray[np.floating], box: Box, channels: Sequence[str], lesion: Lesion, grid: Grid
) -> list[Row]:
    """Describe each channel of a map.

    Parameters
    ----------
    values
        (n_channels, *box.shape); the map is zero outside the box.
    box
        In voxels of `grid`.
    channels
        Name of each.
    lesion
        On `grid`.
    grid
        The model's.

    Returns
    -------
    list
        One row a channel. ``peak_positive``: largest value, at least 0. ``peak_negative``:
        smallest, at most 0. ``mean_inside``: over the lesion. ``share``: Σ|values| of the channel
        over that of all channels, NaN for a map that is zero. ``peak_distance_mm``: of the voxel
        with the largest |value| to the lesion's border: to the nearest voxel of the lesion, or,
        inside, minus the distance to the nearest voxel outside; NaN for a channel that is zero.
        All are NaN where the map holds one.
        Values keep the unit of the map; nothing is rectified or normalised.
    """
    sizes = np.abs(values).sum(axis=tuple(range(1, values.ndim)), dtype=np.float64)
    total = float(sizes.sum())
    inside = np.zeros(box.shape, bool)
    common = lesion.box.intersect(box)
    if common is not None:
        inside[common.within(box)] = lesion.mask[common.within(lesion.box)]
    rows = []
    for name, one, size in zip(channels, values, sizes, strict=True):
        peak = float("nan")
        if size > 0:
            strongest = np.unravel_index(int(np.abs(one).argmax()), one.shape)
            place = np.add(strongest, box.start)
            peak = border_distance_mm(place, lesion, grid)
        rows.append(
            {
                "channel": name,
                "peak_positive": float(one.max(initial=0.0)),
                "peak_negative": float(one.min(initial=0.0)),
                "mean_inside": float(one[inside].sum(dtype=np.float64)) / lesion.n_voxels,
                "share": float(size) / total if total > 0 else float("nan"),
                "peak_distance_mm": peak,
            }
        )
    return rows


def shell_features(
    values: NDArray[np.floating],
    box: Box,
    channels: Sequence[str],
    lesion: Lesion,
    grid: Grid,
    edges_mm: Sequence[float],
) -> list[Row]:
    """Average each channel of a map inside the lesion and in shells of distance around it.

    Parameters
    ----------
    values, box, channels, lesion, grid
        See `map_features`.
    edges_mm
        Ends of the shells, rising from 0: 0, 2, 4 are the shells 0 < d ≤ 2 and 2 < d ≤ 4.

    Returns
    -------
    list
        One row a channel and shell, from_mm = to_mm = 0 for the lesion itself: ``n_voxels``,
        and mean, mean of the positive part and of the negative part over the shell's voxels in
        the image; NaN for an empty shell. The map counts as zero outside its box.
    """
    near = around(lesion.box, float(edges_mm[-1]), grid.spacing, grid.shape)
    mask = np.zeros(near.shape, bool)
    mask[lesion.box.within(near)] = lesion.mask
    number = shells(mask, grid.spacing, edges_mm)
    part = np.zeros((len(values), *near.shape), values.dtype)
    common = near.intersect(box)
    if common is not None:
        index = (slice(None), *common.within(near))
        part[index] = values[(slice(None), *common.within(box))]
    ends = [(0.0, 0.0), *pairwise(edges_mm)]
    rows = []
    for s, (low, high) in enumerate(ends):
        chosen = part[:, number == s].astype(np.float64)
        n = chosen.shape[1]
        for name, one in zip(channels, chosen, strict=True):
            means = (one.mean(), one.clip(min=0).mean(), one.clip(max=0).mean()) if n else ()
            mean, positive, negative = map(float, means or (np.nan,) * 3)
            rows.append(
                {
                    "channel": name,
                    "from_mm": float(low),
                    "to_mm": float(high),
                    "n_voxels": n,
                    "mean": mean,
                    "mean_positive": positive,
                    "mean_negative": negative,
                }
            )
    return rows


def border_distance_mm(index: NDArray[np.integer], lesion: Lesion, grid: Grid) -> float:
    """Distance of a voxel to a lesion's border, negative inside; see `map_features`.

    Parameters
    ----------
    index
        (rank,) voxel of `grid`.
    lesion, grid
        The lesion and its grid.
    """
    at = index - np.asarray(lesion.box.start)
    size = np.asarray(lesion.box.shape)
    is_inside = bool(((at >= 0) & (at < size)).all()) and bool(lesion.mask[tuple(at)])
    # one voxel more on each side, which is outside
    mask = np.pad(lesion.mask, 1)
    others = np.argwhere(mask != is_inside) - 1
    steps = (others - at) * np.asarray(grid.spacing)
    distance = float(np.sqrt((steps**2).sum(axis=1).min()))
    return -distance if is_inside else distance
