"""Three small pictures of a case, kept with its result for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.space.labelmap import LabelMap
from voxplain.space.plane import planes_through
from voxplain.space.volume import Volume

_WINDOW = (0.5, 99.5)  # percentiles that become black and white


def planes_of(image: Volume, prediction: LabelMap | None) -> dict[str, NDArray[Any]]:
    """Cut planes through the middle of what is predicted, or else of the image.

    Parameters
    ----------
    image
        First channel is shown, from its 0.5th to its 99.5th percentile.
    prediction
        On the image's grid; None: no labels are kept.

    Returns
    -------
    dict
        See `voxplain.study.store.Store.planes`.
    """
    values = image.data[0]
    low, high = np.percentile(values[:: max(1, values.shape[0] // 64)], _WINDOW)
    found: dict[str, NDArray[Any]] = {}
    labels = None
    index = tuple((n - 1) // 2 for n in image.grid.shape)
    if prediction is not None:
        present = sorted(prediction.names)
        found["names"] = np.array([prediction.names[label] for label in present])
        labels = prediction.layers.max(axis=0)  # of overlapping regions the later one
        inside = np.nonzero(labels)
        if len(inside[0]):
            index = tuple(int(np.median(axis)) for axis in inside)
    for plane in planes_through(image.grid, index):
        shown = (plane.pixels(values).astype(np.float64) - low) / max(high - low, 1e-12)
        found[f"{plane.name}:image"] = np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8)
        if labels is not None:
            found[f"{plane.name}:labels"] = np.searchsorted(present, plane.pixels(labels)).astype(
                np.uint16
            )
    return found
