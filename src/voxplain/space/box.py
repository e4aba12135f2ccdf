"""A box of voxels: half-open index ranges, one an axis."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Box:
    """Voxels with ``start <= index < stop`` on every axis; may reach outside an array."""

    start: tuple[int, ...]
    stop: tuple[int, ...]

    @classmethod
    def whole(cls, shape: Sequence[int]) -> Box:
        """Every voxel of an array of this shape."""
        return cls((0,) * len(shape), tuple(int(n) for n in shape))

    @classmethod
    def around(cls, mask: NDArray[np.bool_]) -> Box | None:
        """Smallest box that holds every true voxel; None for an empty mask."""
        ranges = []
        for axis in range(mask.ndim):
            others = tuple(a for a in range(mask.ndim) if a != axis)
            hit = np.flatnonzero(mask.any(axis=others))
            if len(hit) == 0:
                return None
            ranges.append((int(hit[0]), int(hit[-1]) + 1))
        return cls(tuple(r[0] for r in ranges), tuple(r[1] for r in ranges))

    @property
    def shape(self) -> tuple[int, ...]:
        """Length along each axis, 0 where empty."""
        return tuple(max(0, b - a) for a, b in zip(self.start, self.stop, strict=True))

    @property
    def n_voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.shape)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Index of the box in an array that begins at the origin (start must be ≥ 0)."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def within(self, outer: Box) -> tuple[slice, ...]:
        """Index of this box in an array that covers `outer`."""
        return self.shift([-a for a in outer.start]).slices

    def shift(self, by: Sequence[int]) -> Box:
        """Move the box by a number of voxels an axis."""
        return Box(
            tuple(a + d for a, d in zip(self.start, by, strict=True)),
            tuple(b + d for b, d in zip(self.stop, by, strict=True)),
        )

    def intersect(self, other: Box) -> Box | None:
        """Keep the common voxels; None if there are none."""
        start = tuple(map(max, self.start, other.start))
        stop = tuple(map(min, self.stop, other.stop))
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            return None
        return Box(start, stop)

    def union(self, other: Box) -> Box:
        """Smallest box that holds both."""
        return Box(tuple(map(min, self.start, other.start)), tuple(map(max, self.stop, other.stop)))
