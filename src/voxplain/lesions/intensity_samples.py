"""Lesions and the tissue around them, voxel by voxel: distances, differences, border profile."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.optimize import isotonic_regression

from voxplain.errors import LabelError
from voxplain.regions.instances import instances
from voxplain.space.box import Box
from voxplain.space.volume import Volume

Floats = NDArray[np.float64]

Sample = tuple[Floats, Floats, Floats, int]
"""Of a lesion: distances (n,), values (n_channels, n), the ring's variance and voxels."""


def samples_of(
    image: Volume, mask: NDArray[np.bool_], tissue: NDArray[np.bool_], ring_mm: tuple[float, float]
) -> list[Sample]:
    """Take the voxels in and near each lesion, less the mean of the ring around it.

    Parameters
    ----------
    image, mask, tissue, ring_mm
        See `LesionIntensity.learn`.

    Returns
    -------
    list
        One a component that has a ring of two voxels or more: of the lesion's voxels and those
        of healthy tissue nearer than the ring.
    """
    grid = image.grid
    labels = instances(mask, grid).layers[0]
    margin = [int(np.ceil(ring_mm[1] / s)) + 2 for s in grid.spacing]
    found: list[Sample] = []
    for label, place in enumerate(ndimage.find_objects(labels), 1):
        near = Box(
            tuple(s.start - m for s, m in zip(place, margin, strict=True)),
            tuple(s.stop + m for s, m in zip(place, margin, strict=True)),
        ).intersect(Box.whole(grid.shape))
        assert near is not None
        part = labels[near.slices]
        own = part == label
        distance = border_distance(own, grid.spacing)
        free = tissue[near.slices] & (part == 0)
        others = (part > 0) & ~own
        if others.any():
            free &= ndimage.distance_transform_edt(~others, sampling=grid.spacing) > ring_mm[0]
        ring = free & (distance >= ring_mm[0]) & (distance <= ring_mm[1])
        if np.count_nonzero(ring) < 2:
            continue
        data = image.data[(slice(None), *near.slices)].astype(np.float64)
        around = data[:, ring]
        used = own | (free & (distance < ring_mm[0]))
        values = data[:, used] - around.mean(axis=1, keepdims=True)
        n_ring = int(np.count_nonzero(ring))
        found.append((distance[used], values, around.var(axis=1), n_ring))
    return found


def border_distance(mask: NDArray[np.bool_], spacing: Sequence[float]) -> Floats:
    """Distance of voxel centres to the faces of the mask's voxels, negative inside.

    Parameters
    ----------
    mask
        Truth values; what lies beyond the array counts as outside.
    spacing
        In mm.

    Returns
    -------
    numpy.ndarray
        mask.shape; the way to the nearest centre of the other side, less its part within that
        voxel.
    """
    signed = np.empty(mask.shape)
    padded = np.pad(mask, 1)
    index = np.indices(padded.shape)
    inner = (slice(None), *[slice(1, -1)] * mask.ndim)
    steps = np.asarray(spacing).reshape(-1, *[1] * mask.ndim)
    for side, sign in ((padded, -1.0), (~padded, 1.0)):
        nearest = ndimage.distance_transform_edt(
            side, sampling=spacing, return_distances=False, return_indices=True
        )
        cells = np.abs(nearest - index)[inner]
        length = np.sqrt(((cells * steps) ** 2).sum(axis=0))
        most = np.maximum(cells.max(axis=0), 1)
        chosen = side[inner[1:]]
        signed[chosen] = sign * (length * (1 - 0.5 / most))[chosen]
    return signed


def falling_profile(distance: Floats, shares: Floats, at: Floats) -> Floats:
    """Average shares near equally spaced distances, and make them fall to 0.

    Parameters
    ----------
    distance, shares
        (n,) of voxels; a voxel counts for the two nearest of `at`, by nearness.
    at
        Rising.

    Returns
    -------
    numpy.ndarray
        (len(at),) the least-squares fit that never rises, at least 0, and 0 at the end;
        linear where there was no voxel.
    """
    n, step = len(at), at[1] - at[0]
    place = np.clip((distance - at[0]) / step, 0, n - 1)
    low = np.minimum(place.astype(int), n - 2)
    high = place - low
    weights = np.bincount(low, 1 - high, n) + np.bincount(low + 1, high, n)
    sums = np.bincount(low, (1 - high) * shares, n) + np.bincount(low + 1, high * shares, n)
    is_known = weights > 1e-9
    means = sums[is_known] / weights[is_known]
    known = isotonic_regression(means, weights=weights[is_known], increasing=False).x
    profile = np.maximum(np.interp(at, at[is_known], known), 0.0)
    profile[-1] = 0.0
    return np.asarray(profile)


def scale_of(image: Volume, tissue: NDArray[np.bool_]) -> Floats:
    """Give the standard deviation of each channel over the tissue, 1 for a constant channel.

    Raises
    ------
    LabelError
        If there is no tissue.
    """
    if not tissue.any():
        raise LabelError(
            f"{image.name}: there is no healthy tissue in the region given; give another one with "
            "--within"
        )
    scale = image.data[:, tissue].std(axis=1, dtype=np.float64)
    return np.where(scale > 0, scale, 1.0)
