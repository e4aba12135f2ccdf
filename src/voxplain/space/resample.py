"""From one grid to another: intensities, labels, contributions and logits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse

from voxplain.errors import GridError, ImageError
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

Order = Literal[0, 1, 2, 3, 4, 5]
Floats = NDArray[np.floating[Any]]

# Affines come from float32 headers: what is nearer than this to a voxel centre is on it.
TOLERANCE_VOXELS = 1e-3


def resample(
    volume: Volume,
    like: Grid | Volume | LabelMap,
    order: Order = 1,
    fill: float | Sequence[float] | None = None,
) -> Volume:
    """Interpolate an image at the voxel centres of another grid.

    Parameters
    ----------
    volume
        Image to resample; 2D or 3D.
    like
        Grid of the result, or something that lies on it.
    order
        Order of the spline: 0 nearest, 1 linear, up to 5.
    fill
        Value of voxels whose centre is outside of the image's outer faces, one for all or
        one a channel; default: each channel's minimum. Between the outermost voxel centres
        and the outer faces the nearest voxel goes on.

    Returns
    -------
    Volume
        Same channels and name, on the grid of `like`. Grids that differ only by order and
        direction of axes and whole voxels give an exact copy.

    Raises
    ------
    GridError
        If ranks differ or the two do not overlap in space.
    ImageError
        If the number of fills is not that of the channels.

    Notes
    -----
    There is no smoothing before a coarser grid is sampled (as in MONAI and nnU-Net). A map
    whose sum matters goes through `resample_contributions`.
    """
    if order not in get_args(Order):
        raise GridError(f"the order of interpolation is 0 to 5, got {order}")
    grid = _grid_of(like)
    path = _Path.between(volume.grid, grid, what="image")
    if fill is None:
        fills = [channel.min() for channel in volume.data]
    else:
        fills = list(np.atleast_1d(np.asarray(fill, dtype=np.float64)))
        fills *= volume.n_channels if len(fills) == 1 else 1
        if len(fills) != volume.n_channels:
            raise ImageError(f"{volume.n_channels} channels and {len(fills)} values to fill with")
    out = np.empty((volume.n_channels, *grid.shape), volume.data.dtype)
    for channel, source in enumerate(volume.data):
        out[channel] = path.sample(source, order)
        path.fill_outside(out[channel], fills[channel])
    return volume.with_data(out, grid)


def resample_labels(labels: LabelMap, like: Grid | Volume | LabelMap) -> LabelMap:
    """Take for every voxel of another grid the label that lies at its centre.

    Parameters
    ----------
    labels
        Label map; each layer is resampled by itself.
    like
        Grid of the result, or something that lies on it.

    Returns
    -------
    LabelMap
        Same names; background outside of the label map.

    Raises
    ------
    GridError
        If ranks differ or the two do not overlap in space.
    """
    grid = _grid_of(like)
    path = _Path.between(labels.grid, grid, what="label map")
    out = np.empty((len(labels.layers), *grid.shape), labels.layers.dtype)
    for index, layer in enumerate(labels.layers):
        out[index] = path.sample(layer, order=0)
        path.fill_outside(out[index], 0)
    return LabelMap(out, grid, labels.names)


def resample_contributions(values: Floats, from_grid: Grid, to_grid: Grid) -> Floats:
    """Hand each voxel's contribution to the voxels that share its space.

    A voxel's value is divided by the volume it shares with each voxel of the new grid, so
    the sum is kept, not the density. What lies outside of the new grid goes to its nearest
    boundary voxel.

    Parameters
    ----------
    values
        (channels, *from_grid.shape) contributions.
    from_grid, to_grid
        Grids with parallel axes, in any order and direction, of any spacing.

    Returns
    -------
    ndarray
        (channels, *to_grid.shape), same type; each channel has the sum it had (float32: to
        rounding).

    Raises
    ------
    GridError
        If the axes are not parallel, ranks differ, or the grids do not overlap.
    """
    path = _Path.between(from_grid, to_grid, what="map of contributions")
    if path.axes is None:
        raise GridError(
            "contributions can only be moved between grids with parallel axes, so that their "
            f"sum is kept; got {from_grid.describe()} and {to_grid.describe()}, rotated "
            "against each other; attribute on a grid that is parallel to the image's"
        )
    _check_shape(values, from_grid)
    out = np.empty((len(values), *to_grid.shape), values.dtype)
    for channel, source in enumerate(values):
        moved = source.transpose(path.order).astype(np.float64)
        for position, axis in enumerate(path.axes):
            if not axis.is_copy:
                moved = _along(axis.shares(), moved, position)
        out[channel] = moved
    return out


def best_class(logits: Floats, from_grid: Grid, to_grid: Grid) -> NDArray[np.unsignedinteger[Any]]:
    """Find the class with the largest logit on another grid.

    Logits are interpolated linearly, one class at a time, so memory is that of two maps of
    `to_grid`, whatever the number of classes.

    Parameters
    ----------
    logits
        (classes, *from_grid.shape).
    from_grid, to_grid
        Where the logits are and where the classes are wanted. Outside of `from_grid` the
        nearest voxel goes on.

    Returns
    -------
    ndarray
        Class of each voxel of `to_grid`, in the smallest unsigned type; the first of equals.

    Raises
    ------
    GridError
        If ranks differ or the grids do not overlap.
    """
    path = _Path.between(from_grid, to_grid, what="map of logits")
    _check_shape(logits, from_grid)
    winner = np.zeros(to_grid.shape, np.min_scalar_type(max(0, len(logits) - 1)))
    highest = np.array(path.sample(logits[0], order=1))
    for index in range(1, len(logits)):
        logit = path.sample(logits[index], order=1)
        higher = logit > highest
        winner[higher] = index
        np.maximum(highest, logit, out=highest)
    return winner


def above(
    logits: Floats, from_grid: Grid, to_grid: Grid, threshold: float = 0.0
) -> NDArray[np.bool_]:
    """Find where each class's logit is above a threshold on another grid.

    Parameters
    ----------
    logits
        (classes, *from_grid.shape).
    from_grid, to_grid
        As in `best_class`.
    threshold
        Logit; 0 is the probability 0.5 of a sigmoid.

    Returns
    -------
    ndarray
        (classes, *to_grid.shape) booleans.

    Raises
    ------
    GridError
        If ranks differ or the grids do not overlap.
    """
    path = _Path.between(from_grid, to_grid, what="map of logits")
    _check_shape(logits, from_grid)
    out = np.empty((len(logits), *to_grid.shape), np.bool_)
    for index, source in enumerate(logits):
        np.greater(path.sample(source, order=1), threshold, out=out[index])
    return out


@dataclass(frozen=True)
class _Axis:
    """One axis of two parallel grids: source index = scale · target index + offset."""

    n_source: int
    n_target: int
    scale: float
    offset: float

    @classmethod
    def snapped(cls, n_source: int, n_target: int, scale: float, offset: float) -> _Axis:
        """Axis whose positions are whole numbers if all of them nearly are."""
        whole = round(scale), round(offset)
        drift = abs(scale - whole[0]) * max(1, n_target - 1) + abs(offset - whole[1])
        if whole[0] != 0 and drift <= TOLERANCE_VOXELS:
            scale, offset = whole
        return cls(n_source, n_target, float(scale), float(offset))

    @property
    def is_whole(self) -> bool:
        """Whether every target voxel lies on a source voxel (or where one would be)."""
        return self.scale.is_integer() and self.offset.is_integer()

    @property
    def is_copy(self) -> bool:
        """Whether target voxel i is source voxel i."""
        return (self.scale, self.offset, self.n_source) == (1.0, 0.0, self.n_target)

    @property
    def positions(self) -> NDArray[np.float64]:
        """Fractional source index of every target voxel."""
        return np.asarray(self.scale * np.arange(self.n_target) + self.offset, np.float64)

    @property
    def inside(self) -> NDArray[np.bool_]:
        """Which target voxels have their centre within the outer faces of the source."""
        return _within(self.positions, self.n_source)

    @property
    def overlaps(self) -> bool:
        """Whether the two extents share more than a face."""
        first, last = self.positions[[0, -1]]
        reach = abs(self.scale) / 2 - TOLERANCE_VOXELS
        lowest, highest = min(first, last) - reach, max(first, last) + reach
        return bool(lowest < self.n_source - 0.5 and highest > -0.5)

    def sample(self, values: NDArray[Any], axis: int, order: int) -> NDArray[Any]:
        """Nearest (0) or linear (1) interpolation along one array axis."""
        if self.is_copy:
            return values
        last = self.n_source - 1
        if order == 0 or self.is_whole:
            # A tie goes up, everywhere: a shift by half a voxel stays a shift.
            index = np.floor(self.positions + 0.5 + 1e-6).astype(np.intp)
            return values.take(np.clip(index, 0, last), axis)
        at = np.clip(self.positions, 0, last)
        lower = np.floor(at).astype(np.intp)
        dtype = np.result_type(values.dtype, np.float32)
        shape = [1] * values.ndim
        shape[axis] = self.n_target
        share = (at - lower).astype(dtype).reshape(shape)
        below = values.take(lower, axis).astype(dtype, copy=False)
        mixed = values.take(np.minimum(lower + 1, last), axis).astype(dtype, copy=False)
        mixed -= below
        mixed *= share
        mixed += below
        return mixed

    def shares(self) -> sparse.csr_array[np.float64]:
        """Matrix (target, source): the part of each source voxel that each target voxel gets."""
        # Faces of the source in units of target voxels; 0 is the first face of the target.
        faces = (np.arange(self.n_source + 1) - 0.5 - self.offset) / self.scale + 0.5
        inner = np.arange(1.0, self.n_target)
        inner = inner[(inner > faces.min()) & (inner < faces.max())]
        cuts = np.unique(np.concatenate([faces, inner]))
        middle = (cuts[:-1] + cuts[1:]) / 2
        target = np.clip(np.floor(middle).astype(np.intp), 0, self.n_target - 1)
        source = np.rint((middle - 0.5) * self.scale + self.offset).astype(np.intp)
        source = np.clip(source, 0, self.n_source - 1)
        matrix = sparse.coo_array(
            (np.diff(cuts), (target, source)), shape=(self.n_target, self.n_source)
        ).tocsr()
        matrix.data /= np.asarray(matrix.sum(axis=0)).ravel()[matrix.indices]
        return matrix


@dataclass(frozen=True)
class _Path:
    """How the voxels of a target grid find their place in a source grid.

    `matrix` maps homogeneous target indices to source indices. On parallel grids `order`
    says which source axis runs along each target axis, and `axes` how; on grids that are
    rotated against each other `axes` is None.
    """

    matrix: NDArray[np.float64]
    source_shape: tuple[int, ...]
    target_shape: tuple[int, ...]
    order: tuple[int, ...]
    axes: tuple[_Axis, ...] | None

    @classmethod
    def between(cls, source: Grid, target: Grid, what: str) -> _Path:
        if source.rank != target.rank:
            raise GridError(
                f"the {what} has {source.rank} axes ({source.describe()}) and the grid asked "
                f"for has {target.rank} ({target.describe()}); both must be 2D or both 3D"
            )
        matrix = np.linalg.solve(source.affine, target.affine).astype(np.float64)
        order, axes = _parallel_axes(matrix, source.shape, target.shape)
        path = cls(matrix, source.shape, target.shape, order, axes)
        if not path.overlaps:
            raise GridError(
                f"the {what} and the grid asked for do not overlap in space: {_place(source)} "
                f"against {_place(target)}; check that both are of one patient and one scan"
            )
        return path

    @property
    def overlaps(self) -> bool:
        if self.axes is not None:
            return all(axis.overlaps for axis in self.axes)
        return bool(self.inside_rotated.any())

    @cached_property
    def inside_rotated(self) -> NDArray[np.bool_]:
        """Which target voxels have their centre within the outer faces of the source."""
        inside = np.ones(self.target_shape, np.bool_)
        indices = np.ogrid[tuple(slice(n) for n in self.target_shape)]
        for row, n in zip(self.matrix, self.source_shape, strict=False):
            at = row[-1] + sum(step * index for step, index in zip(row, indices, strict=False))
            inside &= _within(np.asarray(at), n)
        return inside

    def sample(self, source: NDArray[Any], order: Order) -> NDArray[Any]:
        """Values at target voxel centres; outside, the nearest source voxel goes on.

        May be a view of `source`.
        """
        if self.axes is None or not (order <= 1 or all(axis.is_whole for axis in self.axes)):
            if source.dtype == np.float16:  # which scipy does not know
                source = source.astype(np.float32)
            return ndimage.affine_transform(
                source, self.matrix, output_shape=self.target_shape, order=order, mode="nearest"
            )
        values = source.transpose(self.order)
        ratios = [axis.n_target / axis.n_source for axis in self.axes]
        for position in np.argsort(ratios).tolist():  # axes that shrink come first
            values = self.axes[position].sample(values, position, order)
        return values

    def fill_outside(self, values: NDArray[Any], fill: float) -> None:
        """Overwrite the target voxels whose centre is outside of the source."""
        if self.axes is None:
            values[~self.inside_rotated] = fill
            return
        for position, axis in enumerate(self.axes):
            np.moveaxis(values, position, 0)[~axis.inside] = fill


def _parallel_axes(
    matrix: NDArray[np.float64], source_shape: tuple[int, ...], target_shape: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[_Axis, ...] | None]:
    """Source axis of each target axis and how they relate; None where rotated."""
    rank = len(source_shape)
    steps = matrix[:rank, :rank]
    order = tuple(np.abs(steps).argmax(axis=0).tolist())
    if sorted(order) != list(range(rank)):
        return order, None
    last = np.asarray(target_shape) - 1
    axes = []
    for target, source in enumerate(order):
        others = steps[source].copy()
        others[target] = 0.0
        if np.abs(others) @ last > TOLERANCE_VOXELS:
            return order, None
        axes.append(
            _Axis.snapped(
                source_shape[source],
                target_shape[target],
                float(steps[source, target]),
                float(matrix[source, rank]),
            )
        )
    return order, tuple(axes)


def _along(
    matrix: sparse.csr_array[np.float64], values: NDArray[np.float64], axis: int
) -> NDArray[np.float64]:
    """Multiply a matrix with every line of an array along one axis."""
    lines = np.moveaxis(values, axis, 0)
    moved = matrix @ lines.reshape(len(lines), -1)
    return np.moveaxis(np.asarray(moved).reshape(-1, *lines.shape[1:]), 0, axis)


def _within(at: NDArray[np.float64], n: int) -> NDArray[np.bool_]:
    return np.asarray((at >= -0.5 - TOLERANCE_VOXELS) & (at <= n - 0.5 + TOLERANCE_VOXELS))


def _grid_of(like: Grid | Volume | LabelMap) -> Grid:
    return like if isinstance(like, Grid) else like.grid


def _check_shape(values: NDArray[Any], grid: Grid) -> None:
    if values.shape[1:] != grid.shape or len(values) == 0:
        raise GridError(
            f"expected an array of shape (channels, *{grid.shape}) on its grid, got {values.shape}"
        )


def _place(grid: Grid) -> str:
    """Describe a grid and the box in mm that its voxel centres span."""
    world = grid.to_world(grid.corners())
    spans = zip(world.min(axis=0), world.max(axis=0), strict=True)
    return f"{grid.describe()}, " + " × ".join(f"{a:.4g}…{b:.4g}" for a, b in spans) + " mm"
