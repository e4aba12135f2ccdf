"""The row of a lesion in the table of instances."""

from __future__ import annotations

import numpy as np

from voxplain.lesions.case import LesionCase
from voxplain.lesions.features import Row
from voxplain.regions.lesion import Lesion


def instance_row(case: LesionCase, lesion: Lesion) -> Row:
    """Describe a lesion: what it is, how large, where, how sure the model is of it.

    Parameters
    ----------
    case
        Model and image.
    lesion
        One of its lesions.

    Returns
    -------
    dict
        Columns of `records.lesion_tables.INSTANCES` but case, patient and model. Position: mean
        of the voxels' centres in RAS mm; in 2D along the grid's axes, z 0. Probability and
        logit: of the class on the clean image over the lesion's voxels. ``touches_border``: a
        voxel lies on the edge of the model's grid.
    """
    grid = case.grid
    index = np.argwhere(lesion.mask) + np.asarray(lesion.box.start)
    centre = [*grid.to_world(index).mean(axis=0), 0.0][:3]
    inside = case.logits[(slice(None), *lesion.box.slices)][:, lesion.mask]
    probability = case.probability(inside)
    ends = zip(lesion.box.start, lesion.box.stop, grid.shape, strict=True)
    return {
        "instance": lesion.name,
        "type": lesion.type,
        "class": case.class_name,
        "n_voxels": lesion.n_voxels,
        "volume_mm3": lesion.n_voxels * grid.voxel_mm3,
        **{f"{axis}_mm": float(mm) for axis, mm in zip("xyz", centre, strict=True)},
        "probability_mean": float(probability.mean(dtype=np.float64)),
        "probability_max": float(probability.max()),
        "logit_mean": float(inside[case.class_index].double().mean()),
        "overlap": lesion.overlap,
        "partners": ";".join(lesion.partners),
        "touches_border": any(a == 0 or b == n for a, b, n in ends),
        "n_windows": len(case.pipeline.windows_for(case.padded(lesion.box))),
    }
