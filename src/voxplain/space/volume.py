"""An image with its place in the patient."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ImageError
from voxplain.space.grid import Grid


@dataclass(frozen=True, eq=False)
class Volume:
    """Intensities on a grid, channels first.

    Parameters
    ----------
    data
        (n_channels, *grid.shape) array; kept in the type it came in, except that integers
        become float32.
    grid
        Where the voxels lie.
    channels
        One name a channel; default ``channel_0``, ….
    name
        Name of the case in tables and reports; never a patient's name.

    Raises
    ------
    ImageError
        If shapes disagree, or a voxel is NaN or infinite.
    """

    data: NDArray[np.floating[Any]]
    grid: Grid
    channels: tuple[str, ...] = field(default=())
    name: str = "case"

    def __post_init__(self) -> None:
        data = np.asarray(self.data)
        if data.dtype.kind not in "biuf":
            raise ImageError(f"{self.name}: image data must be real numbers, got {data.dtype}")
        if data.dtype not in (np.float32, np.float64):
            data = data.astype(np.float32)
        if data.shape[1:] != self.grid.shape or len(data) == 0:
            raise ImageError(
                f"image data must be (channels, *{self.grid.shape}), got shape {data.shape}"
            )
        channels = tuple(self.channels) or tuple(f"channel_{i}" for i in range(len(data)))
        if len(channels) != len(data):
            raise ImageError(f"{len(data)} channels of data, {len(channels)} names: {channels}")
        if bad := _n_not_finite(data):
            raise ImageError(
                f"{self.name}: {bad} of {data.size} voxels are NaN or infinite; replace them "
                "(e.g. by the value of air) before explaining"
            )
        object.__setattr__(self, "data", data)
        object.__setattr__(self, "channels", channels)

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return len(self.data)

    def sha256(self) -> str:
        """Hash of values, shape and affine, for provenance."""
        digest = hashlib.sha256(np.ascontiguousarray(self.data).data)
        digest.update(repr(self.data.shape).encode())
        digest.update(self.grid.affine.tobytes())
        return digest.hexdigest()

    def with_data(self, data: NDArray[np.floating[Any]], grid: Grid | None = None) -> Volume:
        """Replace the values (and the grid); channels and name stay."""
        return replace(self, data=data, grid=self.grid if grid is None else grid)


def _n_not_finite(data: NDArray[np.floating[Any]]) -> int:
    """Count NaN and infinite values; the usual case, none, makes no array."""
    with np.errstate(invalid="ignore", over="ignore"):
        total = data.sum(dtype=np.float64)
    return 0 if np.isfinite(total) else int(data.size - np.count_nonzero(np.isfinite(data)))
