"""Maps on the model's grid, brought back to the image's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.records.attribution import Kind
from voxplain.space.grid import Grid
from voxplain.space.resample import resample, resample_contributions
from voxplain.space.volume import Volume


def restore_map(
    values: NDArray[np.floating], kind: Kind, from_grid: Grid, to_grid: Grid
) -> NDArray[np.floating]:
    """Return an attribution map on the image's grid.

    Contributions keep their sum (each voxel's is dealt out by overlap); sensitivities are
    interpolated linearly, zero outside.

    Parameters
    ----------
    values
        (n_channels, *from_grid.shape).
    kind
        What the values mean.
    from_grid, to_grid
        The model's and the image's grid.
    """
    if from_grid.matches(to_grid, atol_mm=0.0):
        return values
    if kind == "contribution":
        return resample_contributions(values, from_grid, to_grid).astype(values.dtype)
    return resample(Volume(values, from_grid), like=to_grid, fill=0.0).data
