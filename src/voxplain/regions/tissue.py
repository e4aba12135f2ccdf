"""Where there is tissue in an image whose body was not segmented."""

from __future__ import annotations

import numpy as np
from skimage.filters import threshold_otsu

from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

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
    first = image.data[0]
    values, counts = np.unique(first, return_counts=True)
    inside = first != values[counts.argmax()]
    if counts.max() < _MASKED * first.size:
        inside = first > threshold_otsu(first)
    return LabelMap(inside[None].astype(np.uint8), image.grid, {1: "tissue"})
