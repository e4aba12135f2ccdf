"""Where voxels lie in the patient: a shape and an affine, and their algebra."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.errors import GridError

_CODES = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, eq=False)
class Grid:
    """A regular grid of voxels (3D) or pixels (2D).

    Parameters
    ----------
    shape
        Number of voxels along each array axis; 2 or 3 of them.
    affine
        (rank+1, rank+1) float64 matrix from voxel index (of voxel centres) to millimetres.
        3D: RAS+ (x to the patient's right, y to anterior, z to superior), as in NIfTI.
        2D: an image plane; the identity means one pixel is 1 mm.

    Raises
    ------
    GridError
        If the rank is not 2 or 3, a length is not positive, or the affine has the wrong
        shape, holds NaN/Inf, is singular, or its last row is not (0, …, 0, 1).
    """

    shape: tuple[int, ...]
    affine: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape)
        affine = np.array(self.affine, dtype=np.float64)
        rank = len(shape)
        if rank not in (2, 3):
            raise GridError(f"a grid has 2 or 3 axes, got shape {shape}")
        if min(shape) < 1:
            raise GridError(f"every length of a grid is at least 1, got shape {shape}")
        if affine.shape != (rank + 1, rank + 1):
            raise GridError(
                f"a grid of rank {rank} needs an affine of shape {(rank + 1, rank + 1)}, "
                f"got {affine.shape}"
            )
        if not np.isfinite(affine).all():
            raise GridError("the affine holds NaN or Inf; repair the image header")
        if not np.allclose(affine[-1], [0.0] * rank + [1.0]):
            raise GridError(f"the last row of an affine is (0, …, 0, 1), got {affine[-1]}")
        columns = np.linalg.norm(affine[:rank, :rank], axis=0)
        volume = abs(np.linalg.det(affine[:rank, :rank]))
        if not columns.all() or volume < 1e-6 * np.prod(columns):
            raise GridError(
                "the affine is singular (a zero or repeated axis), so voxels have no place in "
                f"the patient: spacing {tuple(columns.tolist())}; repair the image header"
            )
        affine.setflags(write=False)
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    # -- what it is -----------------------------------------------------------------
    @property
    def rank(self) -> int:
        """Number of axes: 2 or 3."""
        return len(self.shape)

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def spacing(self) -> tuple[float, ...]:
        """Distance between neighbouring voxel centres along each array axis, in mm."""
        columns = self.affine[: self.rank, : self.rank]
        return tuple(float(s) for s in np.linalg.norm(columns, axis=0))

    @property
    def voxel_mm3(self) -> float:
        """Size of one voxel in mm³ (2D: mm²)."""
        return float(abs(np.linalg.det(self.affine[: self.rank, : self.rank])))

    @property
    def orientation(self) -> str:
        """Nearest anatomical direction of each array axis, e.g. ``"RAS"`` (3D), ``"RA"`` (2D)."""
        return "".join(_CODES[axis][1 if sign > 0 else 0] for axis, sign in self._closest_axes())

    def _closest_axes(self) -> list[tuple[int, int]]:
        """World axis and sign that each array axis is nearest to (a permutation)."""
        from nibabel.orientations import io_orientation

        if self.rank == 3:
            return [(int(axis), int(sign)) for axis, sign in io_orientation(self.affine)]
        padded = np.eye(4)
        padded[:2, :2] = self.affine[:2, :2]
        return [(int(axis), int(sign)) for axis, sign in io_orientation(padded)[:2]]

    # -- comparison -----------------------------------------------------------------
    def __eq__(self, other: object) -> bool:
        """Compare shape and affine, to the last bit."""
        return (
            isinstance(other, Grid)
            and self.shape == other.shape
            and bool(np.array_equal(self.affine, other.affine))
        )

    def __hash__(self) -> int:
        return hash((self.shape, self.affine.tobytes()))

    def matches(self, other: Grid, atol_mm: float = 1e-3) -> bool:
        """Whether every voxel centre lies within `atol_mm` of the other grid's."""
        if self.shape != other.shape:
            return False
        corners = self.corners()
        return bool(np.abs(self.to_world(corners) - other.to_world(corners)).max() <= atol_mm)

    def describe(self) -> str:
        """One short phrase: shape, spacing and orientation."""
        spacing = ", ".join(f"{s:.4g}" for s in self.spacing)
        return f"shape {self.shape}, spacing ({spacing}) mm, orientation {self.orientation}"

    # -- points ---------------------------------------------------------------------
    def to_world(self, index: ArrayLike) -> NDArray[np.float64]:
        """Positions in mm of voxel indices; (..., rank) to (..., rank)."""
        points = np.asarray(index, dtype=np.float64)
        rank = self.rank
        return np.asarray(points @ self.affine[:rank, :rank].T + self.affine[:rank, rank])

    def to_index(self, world: ArrayLike) -> NDArray[np.float64]:
        """Fractional voxel indices of positions in mm; (..., rank) to (..., rank)."""
        inverse = np.linalg.inv(self.affine)
        points = np.asarray(world, dtype=np.float64)
        rank = self.rank
        return np.asarray(points @ inverse[:rank, :rank].T + inverse[:rank, rank])

    def corners(self) -> NDArray[np.float64]:
        """List the indices of the 2**rank corner voxels, (2**rank, rank)."""
        ends = np.meshgrid(*[[0.0, n - 1.0] for n in self.shape], indexing="ij")
        return np.stack([end.ravel() for end in ends], axis=-1)

    # -- derived grids --------------------------------------------------------------
    def crop(self, start: Sequence[int], shape: Sequence[int]) -> Grid:
        """Grid of the box that begins at index `start` (may be negative: padding)."""
        affine = self.affine.copy()
        affine[: self.rank, self.rank] = self.to_world(np.asarray(start, dtype=np.float64))
        return Grid(tuple(shape), affine)

    def reorient(self, orientation: str) -> Grid:
        """Permute and flip the array axes to `orientation`, e.g. ``"RAS"``; voxels stay in place.

        Nothing is rotated: an oblique grid stays oblique, each array axis is the one nearest
        to the direction asked for.
        """
        letters = orientation.upper()
        order: list[int] = []
        steps: list[int] = []
        own = self._closest_axes()
        for letter in letters:
            wanted = [axis for axis, pair in enumerate(_CODES[: self.rank]) if letter in pair]
            if len(letters) != self.rank or len(wanted) != 1:
                raise GridError(
                    f"orientation {orientation!r} is not {self.rank} letters, one each of "
                    + ", ".join("/".join(pair) for pair in _CODES[: self.rank])
                )
            sign = 1 if letter == _CODES[wanted[0]][1] else -1
            source = next(i for i, (axis, _) in enumerate(own) if axis == wanted[0])
            order.append(source)
            steps.append(sign * own[source][1])
        if sorted(order) != list(range(self.rank)):
            raise GridError(
                f"orientation {orientation!r} does not name each of {self.rank} axes once"
            )
        start = [0] * self.rank
        matrix = np.zeros((self.rank + 1, self.rank + 1))
        matrix[-1, -1] = 1.0
        for new, (old, step) in enumerate(zip(order, steps, strict=True)):
            matrix[old, new] = step
            start[old] = 0 if step > 0 else self.shape[old] - 1
        matrix[: self.rank, -1] = start
        return Grid(tuple(self.shape[old] for old in order), self.affine @ matrix)

    def respace(self, spacing: Sequence[float]) -> Grid:
        """Grid over the same extent with another spacing in mm.

        The outer faces of the first voxels coincide; the number of voxels is the extent over
        the new spacing, rounded, at least 1.
        """
        old = np.asarray(self.spacing)
        new = np.asarray(spacing, dtype=np.float64)
        if new.shape != (self.rank,) or not (np.isfinite(new).all() and (new > 0).all()):
            raise GridError(f"spacing is {self.rank} positive numbers in mm, got {tuple(spacing)}")
        shape = np.maximum(1, np.rint(np.asarray(self.shape) * old / new)).astype(int)
        scale = new / old
        matrix = np.diag([*scale, 1.0])
        matrix[: self.rank, -1] = (scale - 1) / 2
        return Grid(tuple(shape.tolist()), self.affine @ matrix)

    def resize(self, shape: Sequence[int]) -> Grid:
        """Grid over the same extent with another number of voxels; all outer faces coincide."""
        if len(shape) != self.rank or min(shape) < 1:
            raise GridError(f"a shape is {self.rank} whole numbers of at least 1, got {shape}")
        scale = np.asarray(self.shape) / np.asarray(shape)
        matrix = np.diag([*scale, 1.0])
        matrix[: self.rank, -1] = (scale - 1) / 2
        return Grid(tuple(int(n) for n in shape), self.affine @ matrix)

    def permute(self, order: Sequence[int]) -> Grid:
        """Grid whose axis i is axis ``order[i]`` of this one, as ``numpy.transpose``."""
        if sorted(order) != list(range(self.rank)):
            raise GridError(f"an order names each of {self.rank} axes once, got {tuple(order)}")
        columns = [*order, self.rank]
        return Grid(tuple(self.shape[i] for i in order), self.affine[:, columns])
