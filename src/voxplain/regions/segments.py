"""Overlapping segments of an image at several scales, and the order in which they tell most."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.ndimage import distance_transform_edt, find_objects

SCALES_2D = (50, 100, 150, 250, 500, 1200)
"""Felzenszwalb's scale parameter, of a picture of `SIDE`² pixels with values in [-1, 1]."""

SIDE = 224

SCALES_3D = (30, 60, 120, 250, 500, 1000)
"""Numbers of supervoxels in the image."""

DILATION_PIXELS = 5.0
DILATION_MM = 2.5

_TIE = 1e-10
"""Means that differ less, as a share of the largest value, are equal up to rounding."""


@dataclass(frozen=True, eq=False)
class Segments:
    """Voxel sets that may overlap.

    Parameters
    ----------
    members
        (n_segments, n_voxels of the image, the last axis running fastest), 1 where the voxel
        is in the segment.
    shape
        Of the image.
    """

    members: sparse.csr_array
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return int(self.members.shape[0])

    @cached_property
    def by_voxel(self) -> sparse.csc_array:
        """`members`, stored so that the segments of a voxel are found fast."""
        return self.members.tocsc()

    @classmethod
    def of(cls, voxels: Iterable[NDArray[np.integer]], shape: Sequence[int]) -> Segments:
        """Make segments of the flat voxel numbers of each.

        Parameters
        ----------
        voxels
            Each segment's voxels, each voxel once; empty segments are left out.
        shape
            Of the image.
        """
        n_voxels = int(np.prod(shape))
        small = np.int32 if n_voxels < 2**31 else np.int64
        parts = [part.astype(small) for part in voxels if len(part)]
        stops = np.cumsum([0, *map(len, parts)])
        numbers = np.concatenate(parts) if parts else np.zeros(0, small)
        ones = np.ones(len(numbers), np.int8)
        table = sparse.csr_array((ones, numbers, stops), shape=(len(parts), n_voxels))
        return cls(table, tuple(shape))


def multi_scale(data: NDArray[np.floating], spacing: Sequence[float]) -> Segments:
    """Divide an image at six scales, and dilate each segment so that it takes its edge in.

    A picture: as PAIR's XRAI does it. Resized to 224 x 224 pixels (cubic, anti-aliased);
    Felzenszwalb and Huttenlocher's graph segmentation at the scales `SCALES_2D`, each after a
    blur of 0.8 pixels and with at least 150 pixels a segment; labels back by the nearest
    neighbour; dilation by a disk of 5 pixels of the picture itself.

    A volume, for which that segmentation does not exist: SLIC supervoxels (compactness 0.1,
    distances in proportion to the spacing), about `SCALES_3D` of them; dilation by a ball of
    2.5 mm.

    Parameters
    ----------
    data
        (n_channels, *shape) with 2 or 3 axes of space, scaled to [-1, 1].
    spacing
        In mm; only a volume's counts.

    Returns
    -------
    Segments
        From the finest to the coarsest scale in 2D, from the coarsest in 3D.

    Notes
    -----
    Memory: 10 bytes for each voxel of each dilated segment once they are ordered, in all some
    100 bytes a voxel of the image, and 250 while they are made. Time: a second for a picture;
    ten seconds for a million voxels on one core, most of it SLIC.

    References
    ----------
    Kapishnikov et al. 2019, arXiv 1906.02825, section 3.2; Felzenszwalb and Huttenlocher 2004;
    Achanta et al. 2012.
    """
    shape = data.shape[1:]
    if len(shape) == 2:
        return Segments.of(_dilated(_graph_cuts(data), DILATION_PIXELS, (1.0, 1.0)), shape)
    return Segments.of(_dilated(_supervoxels(data, spacing), DILATION_MM, spacing), shape)


def most_telling_first(
    segments: Segments, values: NDArray[np.floating], area: float = 1.0, least: int = 1
) -> NDArray[np.float64]:
    """Cover the image by segments, always adding the one whose new voxels have the largest mean.

    Each voxel gets that mean at the step that covered it; voxels that no step covered get their
    own common mean. The sum of the values is kept.

    Parameters
    ----------
    segments
        Of the image; of equal means the first wins, so that rounding decides nothing.
    values
        One number a voxel, on the image's shape.
    area
        Stop once more than this share of the image is covered, 0 to 1.
    least
        Voxels that a segment must add.

    Notes
    -----
    Sums and sizes of what is left of each segment are carried along: the time grows with the
    number of voxels in all segments, and with the square of the number of segments.
    """
    flat = values.astype(np.float64).ravel()
    starts, numbers = segments.members.indptr, segments.members.indices
    left = np.diff(starts).astype(np.int64)
    sums = np.array([flat[numbers[a:b]].sum() for a, b in pairwise(starts)])
    is_covered = np.zeros(flat.size, dtype=bool)
    n_covered = 0
    found = np.empty(flat.size)
    tie = _TIE * np.abs(flat).max(initial=0.0)
    while n_covered <= area * flat.size:
        can_add = np.flatnonzero(left >= max(1, least))
        if not can_add.size:
            break
        gains = sums[can_add] / left[can_add]
        best = can_add[np.argmax(gains >= gains.max() - tie)]
        new = numbers[starts[best] : starts[best + 1]]
        new = new[~is_covered[new]]
        found[new] = flat[new].mean()
        is_covered[new] = True
        n_covered += len(new)
        columns = segments.by_voxel[:, new]
        left -= np.bincount(columns.indices, minlength=len(left))
        weights = np.repeat(flat[new], np.diff(columns.indptr))
        sums -= np.bincount(columns.indices, weights, minlength=len(left))
    if n_covered < flat.size:
        found[~is_covered] = flat[~is_covered].mean()
    return found.reshape(segments.shape)


def _graph_cuts(data: NDArray[np.floating]) -> Iterator[NDArray[np.integer]]:
    """Labels of a picture at each of `SCALES_2D`."""
    from skimage.segmentation import felzenszwalb
    from skimage.transform import resize

    picture = np.moveaxis(data.astype(np.float64), 0, -1)
    square = resize(picture, (SIDE, SIDE), order=3, mode="constant", anti_aliasing=True)
    for scale in SCALES_2D:
        with warnings.catch_warnings():  # the last axis is meant as channels, however many
            warnings.filterwarnings("ignore", "Got image with third dimension", RuntimeWarning)
            labels = felzenszwalb(square, scale=scale, sigma=0.8, min_size=150)
        yield resize(
            labels, picture.shape[:2], order=0, mode="constant", preserve_range=True,
            anti_aliasing=False,
        ).astype(np.int64)  # fmt: skip


def _supervoxels(
    data: NDArray[np.floating], spacing: Sequence[float]
) -> Iterator[NDArray[np.integer]]:
    """Labels of a volume at each of `SCALES_3D`."""
    from skimage.segmentation import slic

    relative = np.asarray(spacing) / np.prod(spacing) ** (1 / len(spacing))
    for n_segments in SCALES_3D:
        yield slic(
            data, n_segments=n_segments, compactness=0.1, spacing=relative, channel_axis=0,
            convert2lab=False, start_label=0,
        )  # fmt: skip


def _dilated(
    divisions: Iterable[NDArray[np.integer]], radius: float, spacing: Sequence[float]
) -> Iterator[NDArray[np.integer]]:
    """Flat numbers of the voxels within a radius of each label of each division."""
    margins = [int(radius // s) for s in spacing]
    for labels in divisions:
        for label, place in enumerate(find_objects(labels + 1)):
            if place is None:
                continue
            around = tuple(
                slice(max(0, part.start - margin), min(n, part.stop + margin))
                for part, margin, n in zip(place, margins, labels.shape, strict=True)
            )
            distance = distance_transform_edt(labels[around] != label, sampling=spacing)
            inside = np.nonzero(distance <= radius)
            shifted = [i + part.start for i, part in zip(inside, around, strict=True)]
            yield np.ravel_multi_index(shifted, labels.shape)
