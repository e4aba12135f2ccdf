"""Results as MONAI MetaTensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from voxplain.records.attribution import Attribution
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume


def to_metatensor(result: Attribution | LabelMap | Volume) -> Any:
    """Return an image, a map or labels as a ``monai.data.MetaTensor``.

    Parameters
    ----------
    result
        Attribution, label map or volume.

    Returns
    -------
    monai.data.MetaTensor
        (n_channels or n_layers, *shape), a copy, with the affine of the grid (RAS, mm; for 2D
        completed to 4×4).
    """
    from monai.data import MetaTensor

    if isinstance(result, Attribution):
        values = np.array(result.values)
    else:
        values = np.array(result.layers if isinstance(result, LabelMap) else result.data)
    affine = np.eye(4)
    rank = result.grid.rank
    affine[:rank, :rank] = result.grid.affine[:rank, :rank]
    affine[:rank, 3] = result.grid.affine[:rank, rank]
    return MetaTensor(torch.from_numpy(values), affine=torch.from_numpy(affine))
