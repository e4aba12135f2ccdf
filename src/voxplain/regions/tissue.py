"""Where there is tissue in an image whose body was not segmented."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import label
from skimage.filters import threshold_otsu

from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

_AIR = 0.9  # share of the voxels on the volume's twelve edges
_MOST = 300_000  # voxels by which air is told, where nothing else depends on it
_MASKED = 0.1  # share of voxels at one value that says: the background was cut away


def tissue_mask(image: Volume) -> LabelMap:
    """Return the voxels of the body.

    Parameters
    ----------
    image
        As it was read; its first channel decides.

    Returns
    -------
    LabelMap
        Region ``tissue``: voxels of another than the commonest value where at least a tenth of
        all voxels has that (the background was cut away, as after skull stripping), else those
        above Otsu's threshold, which leaves air and some dark tissue out. Of a CT whose field of
        view is a disc that is all inside of it, air too.
    """
    return _tissue(image, image.data[0])


def _tissue(image: Volume, voxels: NDArray[np.floating[Any]]) -> LabelMap:
    """Decide by some voxels of the first channel for all of it."""
    first = image.data[0]
    values, counts = np.unique(voxels, return_counts=True)
    if counts.max() < _MASKED * voxels.size:
        inside = first > threshold_otsu(voxels.reshape(-1))  # of an image it asks for its colours
    else:
        inside = first != values[counts.argmax()]
    return LabelMap(inside[None].astype(np.uint8), image.grid, {1: "tissue"})


def body_mask(image: Volume) -> LabelMap | None:
    """Return the body, lungs and all, where there is air around to tell it from; else None.

    It is `tissue_mask` and what that encloses in axial planes.

    Parameters
    ----------
    image
        As it was read. Nine in ten of the voxels on the twelve edges of the volume must be outside
        of the tissue; pictures, such as radiographs, have no such edges.
    """
    if image.grid.rank != 3:
        return None
    step = max(1, round((image.grid.n_voxels / _MOST) ** (1 / 3)))
    few = image.data[0][(slice(None, None, step),) * 3]
    tissue = _tissue(image, few)
    is_end = [np.isin(np.arange(n), (0, n - 1)) for n in image.grid.shape]
    n_ends = sum(np.meshgrid(*(end.astype(int) for end in is_end), indexing="ij", sparse=True))
    outside = tissue.layers[0][np.asarray(n_ends) >= 2] == 0
    if not tissue.layers.any() or outside.mean() < _AIR:
        return None
    return replace(tissue, layers=_filled(tissue)[None].astype(np.uint8))


def _filled(tissue: LabelMap) -> NDArray[np.bool_]:
    """Tissue, and air from which no way leads to the border of its axial plane: lungs, bowel."""
    axis = next(i for i, letter in enumerate(tissue.grid.orientation) if letter in "IS")
    found: NDArray[np.bool_] = np.asarray(tissue.layers[0] > 0)
    for plane in np.moveaxis(found, axis, 0):  # a view
        parts, _ = label(~plane)
        border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        plane |= ~np.isin(parts, border)  # noqa: PLW2901 - filled in place
    return found
