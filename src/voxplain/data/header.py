"""What the header of an image file says, without its voxels."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from voxplain.errors import GridError, ImageError
from voxplain.space import Grid, nifti, read_image, read_labels

_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}


@dataclass(frozen=True)
class Header:
    """Where voxels lie, and how many channels a file holds.

    Parameters
    ----------
    grid
        As `voxplain.space.read_image` would give it.
    n_channels
        Length of the channel axis.
    """

    grid: Grid
    n_channels: int


def read_header(path: Path, is_label: bool = False) -> Header:
    """Read the header of a file; of formats other than NIfTI, which are small, all of it.

    Parameters
    ----------
    path
        Image or label map.
    is_label
        Whether it is a label map.

    Raises
    ------
    ImageError
        If the file cannot be read, or gives voxels no place.
    """
    if path.is_file() and path.name.lower().endswith(nifti.SUFFIXES):
        return _nifti(path)
    if is_label:
        labels = read_labels(path, names={})
        return Header(labels.grid, 1)
    image = read_image(path)
    return Header(image.grid, image.n_channels)


def _nifti(path: Path) -> Header:
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nibabel.load(path)
        shape = tuple(int(n) for n in image.shape)
        affine = np.asarray(image.affine, dtype=np.float64)
        unit = image.header.get_xyzt_units()[0]
    except (
        ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error,
        KeyError,  # a unit of length that NIfTI does not know
    ) as error:  # fmt: skip
        reason = " ".join(str(error).replace(str(path), path.name).split())
        raise ImageError(
            f"{path}: cannot be read as NIfTI, the file is damaged, cut short or of another "
            f"format ({reason or type(error).__name__}); copy or convert it again"
        ) from error
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) not in (2, 3, 4):
        raise ImageError(
            f"{path}: expected 3 axes, or 4 with channels last, got shape {image.shape}; save "
            "each time point or component as a file of its own"
        )
    affine[:3] *= _MM[unit]
    try:
        return Header(Grid((*shape, 1)[:3], affine), shape[3] if len(shape) == 4 else 1)
    except GridError as error:
        raise ImageError(f"{path}: {error}; repair the header") from error
