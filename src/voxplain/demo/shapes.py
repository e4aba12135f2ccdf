"""Signed distances in mm (negative inside) of the solids an anatomy is built from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import make_interp_spline
from scipy.spatial import cKDTree

Floats = NDArray[np.floating[Any]]
Path = Sequence[Sequence[float] | NDArray[np.float64]] | NDArray[np.float64]
FAR_MM = 60.0


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid with its axes parallel to the body's, or turned about the body's z.

    Parameters
    ----------
    centre, radii
        Three numbers each, in mm.
    turn
        Rotation about z in radians, from x towards y.
    """

    centre: ArrayLike
    radii: ArrayLike
    turn: float = 0.0

    def distance(self, points: Floats) -> Floats:
        """First-order signed distance of points (n, 3), (n,)."""
        cos, sin = np.cos(self.turn), np.sin(self.turn)
        rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        local = (points - np.asarray(self.centre, points.dtype)) @ rotation.astype(points.dtype)
        local /= np.asarray(self.radii, points.dtype)
        level = np.sqrt(np.einsum("ij,ij->i", local, local))
        local /= np.asarray(self.radii, points.dtype)
        slope = np.sqrt(np.einsum("ij,ij->i", local, local))
        return np.asarray(level * (level - 1) / np.maximum(slope, 1e-6))


@dataclass(frozen=True)
class Beads:
    """A union of balls close enough to make a tube or a plate.

    Parameters
    ----------
    centres
        (n, 3) positions in mm.
    radii
        (n,) radii in mm.
    """

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]

    @classmethod
    def tube(cls, path: Path, radius: ArrayLike, step_mm: float = 1.5) -> Beads:
        """Balls along a smooth curve through the points of `path`.

        Parameters
        ----------
        path
            (n, 3) points in mm; two make a straight tube, three or more a spline.
        radius
            One radius in mm, or one a point of the path.
        step_mm
            Distance between neighbouring balls.
        """
        knots = np.asarray(path, dtype=np.float64)
        lengths = np.linalg.norm(np.diff(knots, axis=0), axis=1)
        at = np.concatenate([[0.0], np.cumsum(lengths)])
        fine = np.linspace(0, at[-1], max(2, int(np.ceil(at[-1] / step_mm)) + 1))
        curve = make_interp_spline(at, knots, k=min(3, len(knots) - 1))(fine)
        sizes = np.broadcast_to(np.asarray(radius, np.float64), (len(knots),))
        return cls(np.asarray(curve), np.interp(fine, at, sizes))

    @classmethod
    def join(cls, parts: Sequence[Beads]) -> Beads:
        """All balls of several unions."""
        return cls(
            np.concatenate([part.centres for part in parts]),
            np.concatenate([part.radii for part in parts]),
        )

    def distance(self, points: Floats, where: NDArray[np.bool_] | None = None) -> Floats:
        """Signed distance of points (n, 3) to the nearest ball, at most `FAR_MM`, (n,).

        Points that are not `where` are far without being looked at. The nearest ball is the one
        with the nearest centre, which is exact where neighbours have like radii.
        """
        reach = float(self.radii.max()) + 8.0
        low, high = self.centres.min(axis=0) - reach, self.centres.max(axis=0) + reach
        inside = np.ones(len(points), bool) if where is None else where.copy()
        for column, first, last in zip(points.T, low, high, strict=True):
            inside &= (column > first) & (column < last)
        near = np.flatnonzero(inside)
        result = np.full(len(points), FAR_MM, points.dtype)
        found, ball = cKDTree(self.centres).query(points[near], distance_upper_bound=reach)
        hit = np.isfinite(found)
        result[near[hit]] = np.asarray(found)[hit] - self.radii[np.asarray(ball)[hit]]
        return result


@dataclass(frozen=True)
class Waves:
    """A smooth random field: a sum of plane waves, the same wherever it is sampled.

    Parameters
    ----------
    frequencies
        (n, 3) in radians per mm.
    phases
        (n,) in radians.
    """

    frequencies: NDArray[np.float64]
    phases: NDArray[np.float64]

    @classmethod
    def draw(
        cls, rng: np.random.Generator, shortest_mm: float, longest_mm: float, n: int = 8
    ) -> Waves:
        """Waves of random direction, phase and length between two lengths."""
        direction = rng.standard_normal((n, 3))
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        length = rng.uniform(shortest_mm, longest_mm, (n, 1))
        return cls(direction * 2 * np.pi / length, rng.uniform(0, 2 * np.pi, n))

    def at(self, points: Floats) -> Floats:
        """Values of about unit variance at points (n, 3), (n,)."""
        angle = points @ self.frequencies.T.astype(points.dtype)
        angle += self.phases.astype(points.dtype)
        return np.asarray(np.cos(angle).sum(axis=1) * np.sqrt(2 / len(self.phases)))


def rotation(about_x: float, about_y: float, about_z: float) -> NDArray[np.float64]:
    """Rotation matrix of three angles in radians, applied in the order x, y, z."""
    (cx, cy, cz), (sx, sy, sz) = (
        np.cos([about_x, about_y, about_z]),
        np.sin([about_x, about_y, about_z]),
    )
    return np.asarray(
        np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    )
