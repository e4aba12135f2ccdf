"""Images and label maps from files; the suffix says how."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import GridError, ImageError, LabelError
from voxplain.space import dicom, dicom_files, nifti, picture
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

NAMES_FILE = "labels.json"


def read_image(
    paths: Path | str | Sequence[Path | str],
    channels: Sequence[str] | None = None,
    name: str | None = None,
    spacing: Sequence[float] | None = None,
) -> Volume:
    """Read an image from one file, or from several that hold its channels.

    Parameters
    ----------
    paths
        NIfTI: 3D, 4D with channels last, or 2D, which becomes one slice; scaling is applied.
        A folder is a DICOM series (``DIR#2``: the second of several, or ``DIR#UID``).
        PNG, JPEG, TIFF: one picture, grey or RGB, axes (row, column). NPY: (row, column),
        (x, y, z) or (channels, x, y, z). Several files are channels in their order.
    channels
        One name a channel; default red, green, blue for a colour picture, else
        ``channel_0``, ….
    name
        Name of the case; default: the (first) file's without suffix and nnU-Net's
        channel number.
    spacing
        Size of a pixel in mm along each axis, for files that do not say it; default 1 mm.

    Returns
    -------
    Volume
        float32, channels first. A NIfTI file lies where nibabel puts it; other files have
        a diagonal affine.

    Raises
    ------
    ImageError
        If a file is missing, of unknown or damaged format, holds NaN or infinite values, or
        says nothing usable of where its voxels lie.
    GridError
        If several files are on different grids.
    """
    files = [Path(p) for p in ([paths] if isinstance(paths, (str, Path)) else paths)]
    if not files:
        raise ImageError("no image file was given")
    parts = [_read_volume(file, spacing) for file in files]
    grid = parts[0].grid
    for file, part in zip(files, parts, strict=True):
        if not part.grid.matches(grid):
            raise GridError(
                f"channels of one image are on different grids: {files[0]} has "
                f"{grid.describe()}, {file} has {part.grid.describe()}; resample one with "
                "voxplain.space.resample(image, like=other)"
            )
    data = parts[0].data if len(parts) == 1 else np.concatenate([part.data for part in parts])
    own = parts[0].channels if len(parts) == 1 else ()
    return Volume(data, grid, tuple(channels or own), name or case_name(files[0]))


def read_labels(
    path: Path | str,
    names: Mapping[int, str] | Path | str | None = None,
    spacing: Sequence[float] | None = None,
) -> LabelMap:
    """Read a label map of disjoint regions.

    Parameters
    ----------
    path
        NIfTI, PNG, TIFF or NPY with one whole number a voxel; of an indexed-colour PNG the
        indices. JPEG is refused: it changes values.
    names
        Name of each label, or a JSON file ``{"1": "spleen", …}``; default ``labels.json``
        beside the map if there is one. Labels without a name become ``label_N``.
    spacing
        As in `read_image`.

    Returns
    -------
    LabelMap
        One layer, in the smallest unsigned type.

    Raises
    ------
    ImageError
        If the file is missing, of unknown or damaged format, or holds several channels.
    LabelError
        If values are fractions or negative, or the names cannot be read.
    """
    file = Path(path)
    suffix = _known_suffix(file)
    if suffix in (".jpg", ".jpeg"):
        raise ImageError(f"{file}: JPEG changes values and cannot hold labels; use PNG or NIfTI")
    if suffix in nifti.SUFFIXES:
        data, grid = nifti.read_nifti(file)
        _refuse_spacing(file, spacing)
    else:
        data, _ = picture.read_picture(file, is_label=True)
        grid = _flat_grid(file, data, spacing)
    if len(data) != 1:
        raise ImageError(f"{file}: a label map has one channel, got {len(data)}")
    if names is None and file.with_name(NAMES_FILE).is_file():
        names = file.with_name(NAMES_FILE)
    known = names if isinstance(names, Mapping) else _read_names(names)
    try:
        labels = LabelMap.of(data[0], grid, known)
    except LabelError as error:
        raise LabelError(f"{file}: {error}") from error
    smallest = np.min_scalar_type(int(labels.layers.max()))
    return replace(labels, layers=labels.layers.astype(smallest, copy=False))


def case_name(path: Path) -> str:
    """Name of a case from its file: no suffix, no channel number of nnU-Net (``_0000``).

    Of a DICOM series it is the folder's.
    """
    folder, _ = dicom_files.series_place(path)
    if folder.is_dir():
        return folder.resolve().name or "case"
    suffix = _suffix(path)
    stem = path.name[: -len(suffix)] if suffix else path.stem
    return re.sub(r"_\d{4}$", "", stem) or stem


def _read_volume(path: Path, spacing: Sequence[float] | None) -> Volume:
    series = () if _suffix(path) and path.is_file() else dicom_files.series_files(path)
    if series:
        _refuse_spacing(path, spacing)
        return Volume(*dicom.read_dicom(series, str(path)), name=str(path))
    if _known_suffix(path) in nifti.SUFFIXES:
        _refuse_spacing(path, spacing)
        data, grid = nifti.read_nifti(path, np.float32)
        channels: tuple[str, ...] = ()
    else:
        data, channels = picture.read_picture(path)
        grid = _flat_grid(path, data, spacing)
    with np.errstate(over="ignore"):
        return Volume(data.astype(np.float32, copy=False), grid, channels, name=str(path))


def _suffix(path: Path) -> str:
    """Known suffix that a file name ends in, else an empty string."""
    known = sorted((*nifti.SUFFIXES, *picture.SUFFIXES), key=len, reverse=True)
    return next((s for s in known if path.name.lower().endswith(s)), "")


def _known_suffix(path: Path) -> str:
    if path.is_dir():
        raise ImageError(f"{path}: is a folder; give an image file")
    if not path.is_file():
        raise ImageError(f"no such file: {path}")
    suffix = _suffix(path)
    if not suffix:
        known = ", ".join((*nifti.SUFFIXES, *picture.SUFFIXES))
        raise ImageError(f"{path}: unknown image format {path.suffix!r}; known are {known}")
    return suffix


def _refuse_spacing(path: Path, spacing: Sequence[float] | None) -> None:
    if spacing is not None:
        raise ImageError(f"{path}: says its own spacing; leave spacing out")


def _flat_grid(path: Path, data: NDArray[Any], spacing: Sequence[float] | None) -> Grid:
    shape = data.shape[1:]
    steps = (1.0,) * len(shape) if spacing is None else tuple(spacing)
    if len(steps) != len(shape) or not all(s > 0 for s in steps):
        raise ImageError(f"{path}: spacing is {len(shape)} positive numbers in mm, got {steps}")
    try:
        return Grid(shape, np.diag([*steps, 1.0]))
    except GridError as error:
        raise ImageError(f"{path}: {error}") from error


def _read_names(path: Path | str | None) -> dict[int, str]:
    if path is None:
        return {}
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        return {int(label): str(name) for label, name in found.items()}
    except FileNotFoundError as error:
        raise LabelError(f"no such file: {path}") from error
    except (OSError, ValueError, AttributeError) as error:
        raise LabelError(
            f'{path}: expected names of labels as {{"1": "spleen", …}} ({error})'
        ) from error
