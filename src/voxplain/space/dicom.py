"""DICOM series as volumes: slices in order, rescaled, where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ImageError, all_faults
from voxplain.space.dicom_files import read_header, unchecked_values
from voxplain.space.dicom_frames import Frame, frames_of
from voxplain.space.dicom_pixels import read_pixels
from voxplain.space.grid import Grid

_SAME_MM = 0.01  # positions closer than this are one
_ASIDE_MM = 0.1  # from the line through the first and the last slice, within the plane
_UNEVEN = 0.02  # of the distance of slices
_TILT = 0.01  # shift within the plane for each mm between slices (0.6 degrees)
_FLAT = ("CR", "DX", "MG", "RF", "XA", "PX", "IO")


def read_dicom(files: Sequence[Path], where: str) -> tuple[NDArray[np.float32], Grid]:
    """Read the files of one series.

    Slices are sorted by their position along the normal of their plane. Stored values are
    rescaled, each slice by its own slope and intercept (CT: HU).

    Parameters
    ----------
    files
        See `voxplain.space.dicom_files.find_series`.
    where
        Name for messages.

    Returns
    -------
    data
        (1, columns, rows, slices); of a radiograph, which has no place in the patient,
        (1, rows, columns).
    grid
        RAS, mm; of a radiograph, its pixels' spacing (1 mm if it says none).

    Raises
    ------
    MissingExtraError
        If pydicom is not installed.
    ImageError
        If slices are missing, doubled, unevenly spaced, tilted, differ in shape, spacing or
        direction, are in colour, or cannot be decoded; all faults are in one message.

    Notes
    -----
    Positions within 0.01 mm are one; distances may differ by 2 %; a gantry tilt is a shift in
    the plane of more than 1 % of the distance, from the first slice to the last; a single slice
    may lie 0.1 mm beside that line. MONOCHROME1 radiographs are inverted, so that what absorbs
    more is brighter; elsewhere the values are quantities (HU) and stay as they are.
    """
    with unchecked_values():
        headers = [read_header(path) for path in files]
        _refuse_colour(headers, files, where)
        _refuse_mixed_units(headers, where)
        if len(headers) == 1 and is_radiograph(headers[0]):
            return _radiograph(files[0])
        frames, grid = _in_order(headers, files, where)
        data = np.empty((1, *frames[0].shape, len(frames)), np.float32)
        opened: tuple[Path, NDArray[np.float32]] | None = None
        for place, frame in enumerate(frames):
            if opened is None or opened[0] != frame.path:
                opened = (frame.path, read_pixels(frame.path))
            data[0, :, :, place] = opened[1][frame.index].T
        return data, grid


def sorted_slices(files: Sequence[Path], where: str) -> list[tuple[Path, int]]:
    """File, and frame in it, of each slice in the order of `read_dicom`; pixels are not read.

    Raises
    ------
    ImageError
        As `read_dicom`.
    """
    with unchecked_values():
        headers = [read_header(path) for path in files]
        if len(headers) == 1 and is_radiograph(headers[0]):
            return [(files[0], 0)]
        return [(frame.path, frame.index) for frame in _in_order(headers, files, where)[0]]


def _in_order(
    headers: Sequence[Any], files: Sequence[Path], where: str
) -> tuple[list[Frame], Grid]:
    frames = [frame for h, path in zip(headers, files, strict=True) for frame in frames_of(h, path)]
    _check_alike(frames, where)
    normal = np.cross(frames[0].across, frames[0].down)
    frames.sort(key=lambda frame: float(frame.position @ normal))
    first = frames[0]
    affine = np.eye(4)
    affine[:3, 0] = first.across * first.spacing[0]
    affine[:3, 1] = first.down * first.spacing[1]
    affine[:3, 2], affine[:3, 3] = _step(frames, normal, where), first.position
    shape = (*first.shape, len(frames))
    return frames, Grid(shape, np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)


def _refuse_colour(headers: Sequence[Any], files: Sequence[Path], where: str) -> None:
    colours = [
        p.name
        for h, p in zip(headers, files, strict=True)
        if h.get("SamplesPerPixel", 1) != 1 or h.get("PhotometricInterpretation") == "PALETTE COLOR"
    ]
    if colours:
        raise ImageError(
            f"{where}: {len(colours)} files are in colour, e.g. {colours[0]}; expected one grey "
            "value a pixel"
        )


def _refuse_mixed_units(headers: Sequence[Any], where: str) -> None:
    n_ruled = sum("RescaleSlope" in h or "ModalityLUTSequence" in h for h in headers)
    if 0 < n_ruled < len(headers):
        raise ImageError(
            f"{where}: {n_ruled} of {len(headers)} files state how their values are rescaled, the "
            "others do not; repair the headers"
        )


def is_radiograph(header: Any) -> bool:
    """Whether this is a projection: a picture that has no place in the patient."""
    return "ImagePositionPatient" not in header and str(header.get("Modality")) in _FLAT


def _radiograph(path: Path) -> tuple[NDArray[np.float32], Grid]:
    header = read_header(path)
    values = read_pixels(path)
    if len(values) != 1:
        raise ImageError(f"{path}: holds {len(values)} frames without a place in the patient")
    if header.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() + values.min() - values
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or (1.0, 1.0)
    down, across = (float(mm) for mm in spacing)
    return values, Grid(values.shape[1:], np.diag([down, across, 1.0]))


def _check_alike(frames: Sequence[Frame], where: str) -> None:
    """Refuse slices of different shape, spacing or direction, with every difference."""
    first, faults = frames[0], []
    shapes = sorted({frame.shape for frame in frames})
    if len(shapes) > 1:
        faults.append(f"slices of different shape: {', '.join(map(str, shapes))} columns and rows")
    spacings = sorted({tuple(round(mm, 4) for mm in frame.spacing) for frame in frames})
    if len(spacings) > 1:
        faults.append(f"pixels of different size: {', '.join(map(str, spacings))} mm")
    n_turned = sum(
        max(np.abs(f.across - first.across).max(), np.abs(f.down - first.down).max()) > 1e-3
        for f in frames
    )
    if n_turned:
        faults.append(f"mixed orientation: {n_turned} of {len(frames)} slices lie in another "
                      "direction than the first (a scout view among them?)")  # fmt: skip
    if faults:
        raise ImageError(all_faults(f"{where}: not one volume", faults))


def _step(frames: Sequence[Frame], normal: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    """Vector from one slice to the next, LPS mm; the slices are sorted."""
    if len(frames) == 1:
        if not frames[0].thickness:
            raise ImageError(f"{where}: one slice that does not state its thickness")
        return normal * frames[0].thickness
    along = np.array([float(frame.position @ normal) for frame in frames])
    gaps = np.diff(along)
    faults = []
    if (gaps < _SAME_MM).any():
        at = ", ".join(f"{z:.2f}" for z in along[1:][gaps < _SAME_MM][:5])
        faults.append(
            f"{int((gaps < _SAME_MM).sum())} duplicate slices, at {at} mm along the normal"
        )
    real = gaps[gaps >= _SAME_MM]
    usual = float(np.sort(real)[(len(real) - 1) // 2]) if len(real) else 0.0
    for start, gap in zip(along[:-1], gaps, strict=True):
        if gap < _SAME_MM or abs(gap - usual) <= _UNEVEN * usual:
            continue
        n_missing = round(gap / usual) - 1
        if n_missing >= 1 and abs(gap - (n_missing + 1) * usual) <= _UNEVEN * usual:
            what = f"{n_missing} slice{'s' * (n_missing > 1)} missing"
            faults.append(f"{what} between {start:.2f} and {start + gap:.2f} mm")
        else:
            faults.append(f"uneven spacing: {gap:.2f} mm after {start:.2f} mm, usually {usual:.2f}")
    path = frames[-1].position - frames[0].position
    aside = path - (path @ normal) * normal
    if np.linalg.norm(aside) > _TILT * abs(path @ normal):
        angle = np.degrees(np.arctan2(np.linalg.norm(aside), abs(path @ normal)))
        faults.append(
            f"gantry tilt of {angle:.1f} degrees: the slices are sheared; resample the series to "
            "an upright one first"
        )
    faults += _shifted(np.stack([frame.position for frame in frames]), along, path)
    if faults:
        raise ImageError(all_faults(f"{where}: not one volume", faults))
    return np.asarray(path / (len(frames) - 1))


def _shifted(
    positions: NDArray[np.float64], along: NDArray[np.float64], path: NDArray[np.float64]
) -> list[str]:
    """Faults of slices that do not lie on the line from the first to the last."""
    if along[-1] - along[0] < _SAME_MM:
        return []
    line = positions[0] + np.outer((along - along[0]) / (along[-1] - along[0]), path)
    aside = np.linalg.norm(positions - line, axis=1)
    bad = aside > _ASIDE_MM
    if not bad.any():
        return []
    at = ", ".join(f"{z:.2f}" for z in along[bad][:5])
    return [
        f"{int(bad.sum())} of {len(bad)} slices shifted within their plane, up to "
        f"{aside.max():.2f} mm, at {at} mm along the normal"
    ]
