"""Results on the model's grid, brought back to the image's grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.attribution.question import label_layers, label_names
from voxplain.models.model import ModelInfo
from voxplain.records.attribution import Kind
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import above, best_class, resample, resample_contributions
from voxplain.space.volume import Volume


def restore_prediction(
    logits: NDArray[np.floating], info: ModelInfo, from_grid: Grid, to_grid: Grid
) -> LabelMap:
    """Return the predicted labels on the image's grid: logits are resampled, then decided.

    Parameters
    ----------
    logits
        (n_classes, *from_grid.shape).
    info
        Activation and class names.
    from_grid, to_grid
        The model's and the image's grid.
    """
    names = label_names(info)
    if info.activation == "sigmoid" or info.n_classes == 1:
        return LabelMap(label_layers(above(logits, from_grid, to_grid)), to_grid, names)
    return LabelMap(best_class(logits, from_grid, to_grid)[None], to_grid, names)


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
