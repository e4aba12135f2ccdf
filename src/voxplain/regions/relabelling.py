"""Labels replaced by other labels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray


def relabel(labels: NDArray[np.integer[Any]], new: Mapping[int, int]) -> NDArray[Any]:
    """Replace every label by another.

    Parameters
    ----------
    labels
        (n, ...) integers, every value a key of `new`.
    new
        Old label: new label, not negative.

    Returns
    -------
    NDArray
        Same shape, of the smallest unsigned type. Works one item of the first two axes at
        a time, so that nothing but the result is as large as the labels.
    """
    old = np.array(sorted(new))
    values = np.array([new[label] for label in old.tolist()])
    values = values.astype(np.min_scalar_type(int(values.max())))
    result = np.empty(labels.shape, values.dtype)
    for place in np.ndindex(labels.shape[:2]):
        result[place] = values[np.searchsorted(old, labels[place])]
    return result
