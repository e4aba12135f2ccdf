"""NIfTI files: voxels, and where they lie."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from voxplain.errors import GridError, ImageError, OutputError
from voxplain.space.grid import Grid
from voxplain.space.write import atomic_file

SUFFIXES = (".nii", ".nii.gz")
LONGEST_AXIS = 2**15 - 1
SCANNER = 1  # NIfTI code: positions are those of the scanner
_MM = {"unknown": 1.0, "mm": 1.0, "meter": 1e3, "micron": 1e-3}


def read_nifti(path: Path, dtype: DTypeLike | None = None) -> tuple[NDArray[Any], Grid]:
    """Read voxels and grid of a NIfTI file.

    Positions are nibabel's: the sform, else the qform, else spacing alone; a header in
    metres or micrometres is turned into millimetres.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``: 3D, 4D with channels last, or 2D, which becomes one slice.
    dtype
        Type of the result, scaling applied; default: the type that scaling gives, which is
        the stored one where the header has no scaling.

    Returns
    -------
    data
        (channels, x, y, z), contiguous.
    grid
        3D grid.

    Raises
    ------
    ImageError
        If the file is no NIfTI, is truncated, holds complex or RGB voxels, has fewer than 2
        or more than 4 axes, or an affine that gives the voxels no place.
    """
    import nibabel
    from nibabel.filebasedimages import ImageFileError
    from nibabel.spatialimages import HeaderDataError

    try:
        image = nibabel.load(path, mmap=False)
        stored = image.get_data_dtype()
        if stored.fields is not None or stored.kind not in "iuf":
            raise ImageError(
                f"{path}: voxels are {'RGB' if stored.fields else stored}, expected one real "
                "number a voxel; save channels along a fourth axis or as separate files"
            )
        with np.errstate(over="ignore"):  # what does not fit becomes infinite and is refused
            data = np.asarray(image.dataobj, dtype=dtype)
        affine = np.asarray(image.affine, dtype=np.float64)
        unit = image.header.get_xyzt_units()[0]
    except (
        ImageFileError, HeaderDataError, EOFError, OSError, ValueError, zlib.error,
        KeyError,  # a unit of length that NIfTI does not know
        MemoryError,  # absurd lengths in a damaged header
    ) as error:  # fmt: skip
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ImageError(
            f"{path}: cannot be read as NIfTI, the file is damaged, cut short or of another "
            f"format ({reason}); copy or convert it again"
        ) from error
    shape = data.shape
    while len(shape) > 3 and shape[-1] == 1:
        shape = shape[:-1]
    if len(shape) == 2:
        shape = (*shape, 1)
    if len(shape) not in (3, 4):
        raise ImageError(
            f"{path}: expected 3 axes, or 4 with channels last, got shape {data.shape}; save "
            "each time point or component as a file of its own"
        )
    data = data.reshape((*shape, 1) if len(shape) == 3 else shape, order="A")
    affine[:3] *= _MM[unit]
    try:
        grid = Grid(data.shape[:3], affine)
    except GridError as error:
        raise ImageError(f"{path}: {error}") from error
    return np.ascontiguousarray(np.moveaxis(data, -1, 0)), grid


def write_nifti(
    path: Path | str, data: NDArray[Any], grid: Grid, dtype: DTypeLike | None = None
) -> None:
    """Write an array as NIfTI, so that it lies on the patient in every viewer.

    Parameters
    ----------
    path
        ``.nii`` or ``.nii.gz``; replaced only once the new file is complete.
    data
        (channels, *grid.shape) or grid.shape. Several channels become a fourth axis.
    grid
        Where the voxels lie. Pixels of a 2D grid are written as (rows, columns, 1) with
        rows towards posterior and columns towards the patient's left, as ITK places
        pictures.
    dtype
        Type on disk. Default: float32 for floats, the smallest type that holds the values
        for integers and booleans.

    Raises
    ------
    GridError
        If the shapes disagree.
    OutputError
        If the suffix is unknown, values do not fit the type, or the disk refuses.

    Notes
    -----
    The affine is stored as sform in float32, as in every NIfTI-1 file, and as qform too
    unless it is sheared, which a qform cannot hold. Values are never rescaled.
    """
    import nibabel

    path = Path(path)
    if not path.name.endswith(SUFFIXES):
        raise OutputError(f"{path}: a NIfTI file ends in {' or '.join(SUFFIXES)}")
    if data.shape == grid.shape:
        data = data[None]
    if data.shape[1:] != grid.shape or len(data) == 0:
        raise GridError(
            f"{path}: expected data of shape {grid.shape} or (channels, *{grid.shape}), "
            f"got {data.shape}"
        )
    if max(data.shape) > LONGEST_AXIS:
        raise OutputError(
            f"{path}: a NIfTI-1 axis holds at most {LONGEST_AXIS} voxels, got {data.shape}"
        )
    data = _fitted(path, data, dtype)
    affine = grid.affine
    if grid.rank == 2:
        data = data[..., None]
        affine = _plane_in_patient(affine)
    voxels = data[0] if len(data) == 1 else np.moveaxis(data, 0, -1)
    header = nibabel.Nifti1Header()
    header.set_data_dtype(voxels.dtype)
    image = nibabel.Nifti1Image(voxels, affine, header)
    image.header.set_xyzt_units("mm")
    image.set_sform(affine, SCANNER)
    image.set_qform(affine, SCANNER)
    if not np.allclose(image.get_qform(), affine, atol=1e-3):
        image.set_qform(affine, 0)
    with atomic_file(path) as temporary:
        nibabel.save(image, temporary)


def _fitted(path: Path, data: NDArray[Any], dtype: DTypeLike | None) -> NDArray[Any]:
    """Convert data to the type it is stored in."""
    if dtype is None and data.dtype.kind == "f":
        dtype = np.float32
    low, high = data.min(), data.max()
    if dtype is None:
        smallest = np.promote_types(np.min_scalar_type(int(low)), np.min_scalar_type(int(high)))
        return data.astype(smallest, copy=False)
    wanted = np.dtype(dtype)
    if wanted.kind in "iu":
        info = np.iinfo(wanted)
        if not (info.min <= low and high <= info.max) or (
            data.dtype.kind == "f" and not np.array_equal(np.rint(data), data)
        ):
            raise OutputError(
                f"{path}: values from {low} to {high} of type {data.dtype} cannot be kept as "
                f"{wanted}; choose another type"
            )
    return data.astype(wanted, copy=False)


def _plane_in_patient(affine: NDArray[np.float64]) -> NDArray[np.float64]:
    """Affine of one slice: rows to posterior, columns to left, 1 mm thick."""
    placed = np.eye(4)
    placed[0, [0, 1, 3]] = -affine[1]
    placed[1, [0, 1, 3]] = -affine[0]
    return placed
