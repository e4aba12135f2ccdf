"""What is drawn below a map."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.space.picture import RGB
from voxplain.space.volume import Volume


def is_colour(image: Volume) -> bool:
    """Whether this is a colour picture."""
    return image.grid.rank == 2 and image.channels == RGB


def ground(image: Volume) -> NDArray[np.floating[Any]]:
    """Return what lies below a map: the first channel; of a colour picture its grey.

    Returns
    -------
    numpy.ndarray
        (*image.grid.shape) intensities; grey is the mean of red, green and blue.
    """
    return np.asarray(image.data.mean(axis=0) if is_colour(image) else image.data[0])
