"""Pixels of a DICOM file as the quantities they stand for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ImageError
from voxplain.space.dicom_files import read_header, well_formed

_RULE = ("RescaleSlope", "RescaleIntercept")


def read_pixels(path: Path) -> NDArray[np.float32]:
    """Decode one file and rescale its values.

    Returns
    -------
    numpy.ndarray
        (frames, rows, columns).

    Raises
    ------
    ImageError
        If the pixels are damaged, or a decoder for them is not installed.
    """
    header = read_header(path, pixels=True)
    syntax = _syntax(header, path)
    try:
        stored = header.pixel_array
    except (RuntimeError, NotImplementedError) as error:
        raise ImageError(
            f"{path}: pixels in {syntax.name} cannot be decoded; pip install 'voxplain[dicom]' "
            f"brings the decoders ({' '.join(str(error).split())[:200]})"
        ) from None
    except (ValueError, AttributeError, OSError) as error:
        raise ImageError(f"{path}: pixels cannot be read ({error})") from None
    stored = stored.reshape(-1, int(header.Rows), int(header.Columns))
    with well_formed(path):
        return _rescaled(stored, header, path)


def _rescaled(stored: NDArray[Any], header: Any, path: Path) -> NDArray[np.float32]:
    """Apply the rule of the file, or of each frame of an enhanced one."""
    from pydicom.pixels import apply_modality_lut

    own = header.get("PerFrameFunctionalGroupsSequence")
    if own is None:
        stated = [header.get(name) for name in _RULE if name in header]
        if len(stated) == 1 or None in stated:
            raise ImageError(
                f"{path}: expected {' and '.join(_RULE)}, both or none, got one of them or an "
                "empty one, so what its values mean is unknown; repair the header"
            )
        plain: NDArray[np.float32] = np.asarray(apply_modality_lut(stored, header), np.float32)
        return plain
    values = stored.astype(np.float64)
    shared = header.SharedFunctionalGroupsSequence[0]
    name = "PixelValueTransformationSequence"
    for index, frame in enumerate(own):
        holder = frame if name in frame else shared
        if name in holder:
            rule = holder[name][0]
            values[index] = values[index] * float(rule.RescaleSlope) + float(rule.RescaleIntercept)
    rescaled: NDArray[np.float32] = values.astype(np.float32)
    return rescaled


def _syntax(header: Any, path: Path) -> Any:
    """Transfer syntax of the pixels; files without a head are plain, as pydicom found them."""
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:
        is_implicit, is_little = header.original_encoding
        if not is_little or "PixelData" not in header or header["PixelData"].is_undefined_length:
            raise ImageError(f"{path}: says no transfer syntax; its pixels cannot be decoded")
        syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        header.file_meta.TransferSyntaxUID = syntax
    return syntax
