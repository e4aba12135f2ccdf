"""Order in which voxels are removed: from the most to the least relevant, or the reverse."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from voxplain.attribution.maps import Maps
from voxplain.errors import MethodError

Order = Literal["most", "least"]
RankBy = Literal["kind", "signed", "magnitude"]

_ROUNDING = 1e-6  # voxels; 0.1 · 30 is 3, not 3.0000000000000004


def relevance(
    maps: Maps, target: int, change: float, *, by: RankBy = "kind"
) -> NDArray[np.float64]:
    """Return what a target's map is ranked by.

    Parameters
    ----------
    maps, target
        Maps and which of them.
    change
        T(x) − T(filled image): a contribution is relevant if it explains this change.
    by
        ``signed``: the sum over channels, times the sign of `change`. ``magnitude``: the sum of
        magnitudes over channels. ``kind``: signed for contributions, else magnitude.

    Returns
    -------
    numpy.ndarray
        (*image shape) float64.

    Raises
    ------
    MethodError
        If `by` is none of these.
    """
    if by not in get_args(RankBy):
        raise MethodError(f"maps are ranked by {', '.join(get_args(RankBy))}; got {by!r}")
    values = maps.values[target]
    if by == "signed" or (by == "kind" and maps.kind == "contribution"):
        return np.asarray(values.sum(axis=0, dtype=np.float64) * (-1.0 if change < 0 else 1.0))
    return np.asarray(np.abs(values).sum(axis=0, dtype=np.float64))


@dataclass(frozen=True, eq=False)
class Ranking:
    """Voxels, or cubes of them, in the order of a map.

    Parameters
    ----------
    place
        (*shape) place of each voxel's cube in the order, 0 the first.
    ends
        Voxels in the first 1, 2, … cubes; None where a cube is one voxel.
    """

    place: NDArray[np.int32]
    ends: NDArray[np.int64] | None

    def count(self, fraction: float) -> int:
        """Fewest leading cubes that hold at least this share of the voxels."""
        wanted = math.ceil(fraction * self.place.size - _ROUNDING)
        if self.ends is None or wanted <= 0:
            return max(0, wanted)
        return int(np.searchsorted(self.ends, wanted)) + 1

    def share(self, count: int) -> float:
        """Share of the voxels that the first `count` cubes hold."""
        n_voxels = count if self.ends is None or count == 0 else int(self.ends[count - 1])
        return n_voxels / self.place.size


def rank_voxels(
    scores: NDArray[np.floating],
    generator: np.random.Generator,
    *,
    order: Order = "most",
    block: int = 1,
) -> Ranking:
    """Rank voxels, or cubes of voxels, by a map.

    Parameters
    ----------
    scores
        (*shape); the higher, the more relevant.
    generator
        Draws the order among equal scores. From generators of one seed that is one random order
        of the image, the same for every map: two constant maps are ranked alike, and a constant
        map alike in both directions.
    order
        ``most``: the highest score first. ``least``: the lowest first.
    block
        Side of the cubes in voxels, from the image's first voxel on and cut where it ends; a
        cube's score is the mean of its voxels. 1: single voxels. Larger cubes keep removed
        parts whole instead of speckled.

    Returns
    -------
    Ranking
        Memory: one int32 image.

    Raises
    ------
    MethodError
        If a score is not finite, `block` is below 1 or `order` unknown.
    """
    if order not in get_args(Order):
        raise MethodError(f"order is most or least, got {order!r}")
    if block < 1:
        raise MethodError(f"block is at least 1 voxel, got {block}")
    if not np.isfinite(scores).all():
        n = int((~np.isfinite(scores)).sum())
        raise MethodError(
            f"a map with values that are not finite cannot be ranked: {n} of {scores.size} voxels; "
            "explain again with another method or in float32"
        )
    if block == 1:
        place = _places(scores.ravel(), generator, order)
        return Ranking(place.reshape(scores.shape), None)
    cube = _cubes(scores.shape, block)
    sizes = np.bincount(cube.ravel())
    means = np.bincount(cube.ravel(), weights=scores.ravel()) / sizes
    place = _places(means, generator, order)
    ordered = np.empty_like(sizes)
    ordered[place] = sizes
    return Ranking(place[cube], np.cumsum(ordered))


def _places(
    scores: NDArray[np.floating], generator: np.random.Generator, order: Order
) -> NDArray[np.int32]:
    drawn = generator.permutation(len(scores))
    signed = -scores[drawn] if order == "most" else scores[drawn]
    first_to_last = drawn[np.argsort(signed, kind="stable")]
    place = np.empty(len(scores), np.int32)
    place[first_to_last] = np.arange(len(scores), dtype=np.int32)
    return place


def _cubes(shape: tuple[int, ...], block: int) -> NDArray[np.int64]:
    """Return the number of each voxel's cube, (*shape)."""
    index = np.zeros(shape, np.int64)
    for axis, n in enumerate(shape):
        along = np.arange(n) // block
        index *= int(along[-1]) + 1
        index += along.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    return index
