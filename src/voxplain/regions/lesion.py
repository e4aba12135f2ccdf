"""One lesion among many: its voxels, and what it is against the truth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import LabelError
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap

LesionType = Literal["TP", "US", "FP", "FN", "TN", "lesion"]
"""True positive, under-segmented, false positive, missed, healthy control; unknown truth."""

TYPES: tuple[LesionType, ...] = ("TP", "US", "FP", "FN", "TN", "lesion")


@dataclass(frozen=True, eq=False)
class Lesion:
    """A set of voxels that is explained by itself.

    Parameters
    ----------
    name
        Unique in its case: ``P1``, ``P2``, … predicted, ``T1``, … true and missed, ``C1``, …
        control regions; by size, largest first.
    type
        What it is against the truth; ``lesion`` where no truth was given.
    box
        Smallest box that holds it, in voxels of a grid that its maker tells.
    mask
        (*box.shape) truth values.
    overlap
        Agreement with the other side by the rule of `voxplain.regions.matching`; NaN where no
        truth was given.
    partners
        Names of the lesions of the other side that it touches.

    Raises
    ------
    LabelError
        If the mask has not the box's shape, or is empty.
    """

    name: str
    type: LesionType
    box: Box
    mask: NDArray[np.bool_]
    overlap: float = float("nan")
    partners: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if self.mask.shape != self.box.shape or not self.mask.any():
            raise LabelError(
                f"lesion {self.name}: a mask with some voxel and of shape {self.box.shape} was "
                f"expected, got {self.mask.shape} with {int(self.mask.sum())} voxels"
            )

    @property
    def n_voxels(self) -> int:
        """Number of its voxels."""
        return int(np.count_nonzero(self.mask))

    def on(self, shape: Sequence[int]) -> NDArray[np.bool_]:
        """Return its mask on a whole array of a shape."""
        whole = np.zeros(tuple(shape), bool)
        whole[self.box.slices] = self.mask
        return whole


def lesion_map(lesions: Sequence[Lesion], grid: Grid) -> LabelMap:
    """Return a label map with lesion i at label i + 1, in as few layers as keep all voxels.

    Parameters
    ----------
    lesions
        On `grid`.
    grid
        Where their voxels lie.
    """
    dtype = np.min_scalar_type(len(lesions))
    layers: list[NDArray[np.unsignedinteger]] = [np.zeros(grid.shape, dtype)]
    for label, lesion in enumerate(lesions, 1):
        place = lesion.box.slices
        free = next((one for one in layers if not one[place][lesion.mask].any()), None)
        if free is None:
            free = np.zeros(grid.shape, dtype)
            layers.append(free)
        free[place][lesion.mask] = label
    return LabelMap(np.stack(layers), grid, {i: one.name for i, one in enumerate(lesions, 1)})
