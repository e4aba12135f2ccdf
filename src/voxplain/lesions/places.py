"""Where in an image there is healthy tissue with room for a lesion."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from voxplain.errors import LabelError
from voxplain.lesions.case import LesionCase
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample_labels

_PLACES = 0x5D  # of the generator that draws places


def tissue_on_image(case: LesionCase) -> NDArray[np.bool_]:
    """Voxels of the body on the grid of the image as it was read."""
    labels = resample_labels(label_of(case, case.tissue), case.image.grid)
    return np.asarray((labels.layers != 0).any(axis=0))


def healthy_places(case: LesionCase, n: int, reach_mm: float, margin_mm: float) -> NDArray[np.intp]:
    """Draw voxels around which a lesion fits into healthy tissue, all equally likely.

    Parameters
    ----------
    case
        Its predicted and true lesions are kept away from.
    n
        How many, all different; lesions around two of them may overlap, for each is inserted
        alone.
    reach_mm
        Radius of the largest lesion: every voxel within it is tissue, and in the image.
    margin_mm
        Least distance of its border to every predicted or true lesion.

    Returns
    -------
    numpy.ndarray
        (n, rank) voxels of the model's grid, in the order in which they were drawn.

    Raises
    ------
    LabelError
        If fewer than n voxels will do.
    """
    grid = case.grid
    avoid = case.detected(case.logits)
    if case.truth is not None:
        avoid = avoid | case.truth
    # the frame is no tissue: a lesion lies wholly in the image
    tissue = np.pad(case.tissue, 1)
    depth = ndimage.distance_transform_edt(tissue, sampling=grid.spacing)
    fits = depth[(slice(1, -1),) * grid.rank] > reach_mm
    if avoid.any():
        fits &= ndimage.distance_transform_edt(~avoid, sampling=grid.spacing) > reach_mm + margin_mm
    places = np.argwhere(fits)
    if len(places) < n:
        raise LabelError(
            f"{n} healthy places were asked for, {len(places)} voxels of the tissue lie "
            f"{margin_mm:g} mm from every lesion and have room for one of {2 * reach_mm:.3g} mm; "
            "ask for fewer places, smaller diameters or a smaller margin, or say with a mask "
            "(--within) where healthy tissue is"
        )
    rng = case.noise.generator(_PLACES)
    return np.asarray(places[rng.choice(len(places), n, replace=False)])


def label_of(case: LesionCase, mask: NDArray[np.bool_]) -> LabelMap:
    """Put a mask on the model's grid into a label map."""
    return LabelMap(mask[None].astype(np.uint8), case.grid, {1: "region"})
