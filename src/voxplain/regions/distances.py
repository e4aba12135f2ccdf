"""Distances from a mask in millimetres, and what lies within them.

All run from voxel centre to voxel centre. Spacing is the length of a step along each array axis;
the axes are taken as perpendicular, so on a sheared grid the distances are those of the grid
without its shear.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxplain.errors import LabelError
from voxplain.regions.instances import connectivity_of
from voxplain.space.box import Box

_SLACK = 1 + 1e-6  # an affine from a file is rounded: three steps of 0.7 mm are within 2.1 mm


def distance_mm(
    mask: NDArray[np.bool_], spacing: Sequence[float], *, signed: bool = False
) -> NDArray[np.float64]:
    """Measure from every voxel to the nearest voxel of a mask.

    Parameters
    ----------
    mask
        (*shape) truth values, 2D or 3D.
    spacing
        In mm, one an axis.
    signed
        Inside the mask: minus the distance to the nearest voxel outside; what lies beyond the
        array is not known and does not count.

    Returns
    -------
    ndarray
        (*shape) in mm: positive outside, 0 (signed: negative) inside. Infinite where there is
        no voxel to measure to: everywhere for an empty mask, and signed, -inf for a full one.

    Raises
    ------
    LabelError
        If spacing is not one positive number an axis.

    Notes
    -----
    Euclidean, exact. Time and memory grow with the array: crop it with `around` first.
    """
    _check_spacing(spacing, mask.ndim)
    distance = _to_nearest(mask, spacing)
    return distance - _to_nearest(~mask, spacing) if signed else distance


def around(box: Box, margin_mm: float, spacing: Sequence[float], shape: Sequence[int]) -> Box:
    """Grow a box by millimetres, within an array.

    Parameters
    ----------
    box
        Shares a voxel with the array.
    margin_mm
        At least 0; may be infinite.
    spacing
        In mm, one an axis.
    shape
        Of the array.

    Returns
    -------
    Box
        The smallest box that holds each voxel of the array within the margin of one in `box`.

    Raises
    ------
    LabelError
        If the margin or the spacing is out of range, or the box lies outside the array.
    """
    _check_spacing(spacing, len(shape))
    _check_mm(margin_mm, "margin_mm")
    steps = [
        math.floor(min(margin_mm * _SLACK / s, n)) for s, n in zip(spacing, shape, strict=True)
    ]
    return _grown(box, steps, shape)


def dilate_mm(mask: NDArray[np.bool_], spacing: Sequence[float], mm: float) -> NDArray[np.bool_]:
    """Grow a mask to all voxels within a distance.

    Parameters
    ----------
    mask
        (*shape) truth values.
    spacing
        In mm, one an axis.
    mm
        At least 0; infinite for the whole array.

    Returns
    -------
    ndarray
        (*shape): distance ≤ mm, see `distance_mm`. Empty for an empty mask.

    Raises
    ------
    LabelError
        If the distance or the spacing is out of range.

    Notes
    -----
    Distances are measured in a box around each part of the mask, or around the whole mask where
    that is less.
    """
    _check_spacing(spacing, mask.ndim)
    _check_mm(mm, "mm")
    found = np.zeros(mask.shape, bool)
    own = Box.around(mask)
    if own is None:
        return found
    near = [around(own, mm, spacing, mask.shape)]
    parts = [
        around(_box_at(place), mm, spacing, mask.shape)
        for place in ndimage.find_objects(ndimage.label(mask)[0])
    ]
    if sum(box.n_voxels for box in parts) < near[0].n_voxels:
        near = parts
    for box in near:
        found[box.slices] |= _to_nearest(mask[box.slices], spacing) <= mm * _SLACK
    return found


def dilate_steps(
    mask: NDArray[np.bool_], steps: int, neighbours: int | None = None
) -> NDArray[np.bool_]:
    """Grow a mask by its neighbours, and again, a number of times.

    Parameters
    ----------
    mask
        (*shape) truth values, 2D or 3D.
    steps
        How often, at least 0.
    neighbours
        Of a voxel: 6, 18 or 26 in 3D, 4 or 8 in 2D; None: 18, or 4.

    Returns
    -------
    ndarray
        (*shape). On anisotropic voxels a step is not one distance; `dilate_mm` is.

    Raises
    ------
    LabelError
        If a setting is out of range.

    References
    ----------
    Spagnolo et al., "Instance-level explanation saliency", Scientific Reports 2026: 1 to 34
    steps with 18 neighbours.
    """
    if steps < 0:
        raise LabelError(f"steps is at least 0, got {steps}")
    structure = ndimage.generate_binary_structure(mask.ndim, connectivity_of(neighbours, mask.ndim))
    found = mask.astype(bool)
    own = Box.around(found)
    if own is None or steps == 0:  # to scipy, 0 iterations are as many as change something
        return found
    near = _grown(own, [steps] * mask.ndim, mask.shape)
    found[near.slices] = ndimage.binary_dilation(found[near.slices], structure, steps)
    return found


def shells(
    mask: NDArray[np.bool_], spacing: Sequence[float], edges_mm: Sequence[float]
) -> NDArray[np.int16]:
    """Assign each voxel the number of the range of distance that it lies in.

    Parameters
    ----------
    mask
        (*shape) truth values.
    spacing
        In mm, one an axis.
    edges_mm
        Ends of the shells, rising from 0; the last may be infinite.

    Returns
    -------
    ndarray
        (*shape): 0 in the mask, i where edges_mm[i-1] < distance ≤ edges_mm[i], -1 beyond the
        last. Everywhere -1 for an empty mask.

    Raises
    ------
    LabelError
        If the edges do not rise from 0, or the spacing is out of range.

    Notes
    -----
    Distances are measured in a box around the mask only, see `distance_mm`. A distance that is
    above an edge by less than a millionth of it counts as equal: spacings from a file are rounded.
    """
    _check_spacing(spacing, mask.ndim)
    edges = [float(edge) for edge in edges_mm]
    if not edges or edges[0] != 0 or not all(a < b for a, b in pairwise(edges)):
        raise LabelError(f"distances in mm rise from 0, got {', '.join(f'{e:g}' for e in edges)}")
    number = np.full(mask.shape, -1, np.int16)
    own = Box.around(mask)
    if own is None:
        return number
    near = around(own, edges[-1], spacing, mask.shape)
    distance = _to_nearest(mask[near.slices], spacing)
    place = np.searchsorted(np.multiply(edges, _SLACK), distance)
    number[near.slices] = np.where(place < len(edges), place, -1)
    return number


def _to_nearest(mask: NDArray[np.bool_], spacing: Sequence[float]) -> NDArray[np.float64]:
    """Distance to the nearest true voxel, infinite if there is none."""
    if not mask.any():
        return np.full(mask.shape, np.inf)
    away = np.logical_not(mask)
    return np.asarray(ndimage.distance_transform_edt(away, sampling=tuple(spacing)), np.float64)


def _box_at(place: tuple[slice, ...]) -> Box:
    return Box(tuple(s.start for s in place), tuple(s.stop for s in place))


def _grown(box: Box, steps: Sequence[int], shape: Sequence[int]) -> Box:
    """Box with some voxels more on each side, within an array."""
    whole = Box.whole(shape)
    if box.intersect(whole) is None:
        raise LabelError(f"a box inside an array of shape {tuple(shape)} was expected, got {box}")
    grown = Box(
        tuple(a - k for a, k in zip(box.start, steps, strict=True)),
        tuple(b + k for b, k in zip(box.stop, steps, strict=True)),
    )
    near = grown.intersect(whole)
    assert near is not None
    return near


def _check_spacing(spacing: Sequence[float], rank: int) -> None:
    if len(spacing) != rank or not all(s > 0 and math.isfinite(s) for s in spacing):
        raise LabelError(f"spacing is {rank} positive numbers in mm, got {tuple(spacing)}")


def _check_mm(mm: float, name: str) -> None:
    if not mm >= 0:
        raise LabelError(f"{name} is a distance of at least 0 mm, got {mm}")
