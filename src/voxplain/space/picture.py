"""Pictures and arrays in files that do not say where they lie: PNG, JPEG, TIFF, NPY."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ImageError

PICTURES = (".png", ".jpg", ".jpeg")
TIFFS = (".tif", ".tiff")
ARRAYS = (".npy",)
SUFFIXES = PICTURES + TIFFS + ARRAYS

RGB = ("red", "green", "blue")


def read_picture(path: Path, is_label: bool = False) -> tuple[NDArray[Any], tuple[str, ...]]:
    """Read the values of a picture or an array file, channels first.

    Parameters
    ----------
    path
        PNG, JPEG or TIFF: one picture, grey or RGB, axes (row, column), as stored (a
        rotation in the camera's notes is not applied). A fully opaque alpha channel is
        dropped. NPY: (row, column), (x, y, z), or (channels, x, y, z).
    is_label
        Whether the values of an indexed-colour PNG are its indices, not its colours.

    Returns
    -------
    data
        (channels, *axes) in the stored type; 16 bits are kept.
    channels
        ``red, green, blue``, or empty where the file names none.

    Raises
    ------
    ImageError
        If the file is damaged, or holds something else than one such picture.
    """
    suffix = path.suffix.lower()
    if suffix in ARRAYS:
        data = _read_array(path)
        return (data if data.ndim == 4 else data[None]), ()
    last = _read_tiff(path) if suffix in TIFFS else _read_pillow(path, is_label)
    if last.ndim == 2:
        return last[None], ()
    if last.shape[-1] in (2, 4):
        opaque = np.iinfo(last.dtype).max if last.dtype.kind == "u" else 1
        if (last[..., -1] != opaque).any():
            raise ImageError(
                f"{path}: has a transparency channel that is not opaque everywhere; save the "
                "picture without it"
            )
        last = last[..., :-1]
    channels = RGB if last.shape[-1] == 3 else ()
    return np.ascontiguousarray(np.moveaxis(last, -1, 0)), channels


def _read_array(path: Path) -> NDArray[Any]:
    try:
        data = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ImageError(f"{path}: cannot be read as a NumPy array ({error})") from error
    if not isinstance(data, np.ndarray) or data.ndim not in (2, 3, 4):
        raise ImageError(
            f"{path}: expected an array of 2 axes (row, column), 3 (x, y, z) or 4 (channels, "
            f"x, y, z), got shape {np.shape(data)}"
        )
    if data.dtype.kind not in "biuf":
        raise ImageError(f"{path}: expected real numbers, got {data.dtype}")
    return data


def _read_pillow(path: Path, is_label: bool) -> NDArray[Any]:
    """(rows, columns) or (rows, columns, samples)."""
    from PIL import Image

    if path.suffix.lower() == ".png":
        with path.open("rb") as file:
            start = file.read(26)
        if len(start) == 26 and start[24] == 16 and start[25] != 0:
            raise ImageError(
                f"{path}: is a colour PNG of 16 bits a channel, which would be read as 8 bits; "
                "save it as TIFF or as one grey PNG a channel"
            )
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as image:
            if image.mode == "1":
                return np.asarray(image.convert("L"))
            if image.mode == "P" and not is_label:
                return np.asarray(image.convert("RGBA" if "transparency" in image.info else "RGB"))
            if image.mode not in ("L", "P", "LA", "RGB", "RGBA", "I", "F") and not (
                image.mode.startswith("I;16")
            ):
                raise ImageError(f"{path}: expected grey or RGB, got colour mode {image.mode}")
            return np.asarray(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(
            f"{path}: cannot be read as a picture, the file is damaged, cut short or of another "
            f"format ({error})"
        ) from error


def _read_tiff(path: Path) -> NDArray[Any]:
    """(rows, columns) or (rows, columns, samples)."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as file:
            series = file.series[0]
            axes, n_series = series.axes, len(file.series)
            photometric = series.keyframe.photometric.name
            data = np.asarray(series.asarray())
    except (tifffile.TiffFileError, OSError, ValueError, IndexError, AttributeError) as error:
        raise ImageError(
            f"{path}: cannot be read as TIFF, the file is damaged, cut short or needs a codec "
            f"that is not installed ({error})"
        ) from error
    if n_series != 1 or axes not in ("YX", "YXS", "SYX", "CYX"):
        raise ImageError(
            f"{path}: expected one picture, got {n_series} series of axes {axes} and shape "
            f"{data.shape}; save a stack of slices as NIfTI, which says where they lie"
        )
    if photometric not in ("MINISBLACK", "RGB") or data.dtype.kind not in "biuf":
        raise ImageError(
            f"{path}: expected grey (black is zero) or RGB real numbers, got {photometric} of "
            f"{data.dtype}; save it again in one of these"
        )
    return np.moveaxis(data, 0, -1) if axes in ("SYX", "CYX") else data
