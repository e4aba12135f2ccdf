"""DICOM series as volumes: slices in order, rescaled, where they lie in the patient."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ImageError, all_faults
from voxplain.space.dicom_files import read_header
from voxplain.space.grid import Grid

_SAME_MM = 0.01  # positions closer than this are one
_UNEVEN = 0.02  # of the distance of slices
_TILT = 0.01  # shift within the plane for each mm between slices (0.6 degrees)
_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
_FLAT = ("CR", "DX", "MG", "RF", "XA", "PX", "IO")


@dataclass(frozen=True)
class Frame:
    """One slice before its pixels are read.

    Parameters
    ----------
    path, index
        File, and frame in it.
    position
        Centre of the first pixel, LPS mm.
    across, down
        Directions in which the column and the row index grow, LPS.
    spacing
        mm between columns and between rows.
    shape
        Columns and rows.
    thickness
        Distance to the next slice as the file states it, or None.
    """

    path: Path
    index: int
    position: NDArray[np.float64]
    across: NDArray[np.float64]
    down: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    thickness: float | None


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
    the plane of more than 1 % of the distance. MONOCHROME1 radiographs are inverted, so that
    what absorbs more is brighter.
    """
    headers = [read_header(path) for path in files]
    _refuse_colour(headers, files, where)
    if len(headers) == 1 and _is_radiograph(headers[0]):
        return _radiograph(files[0])
    frames, grid = _in_order(headers, files, where)
    data = np.empty((1, *frames[0].shape, len(frames)), np.float32)
    opened: tuple[Path, NDArray[np.float32]] | None = None
    for place, frame in enumerate(frames):
        if opened is None or opened[0] != frame.path:
            opened = (frame.path, _pixels(frame.path))
        data[0, :, :, place] = opened[1][frame.index].T
    return data, grid


def sorted_slices(files: Sequence[Path], where: str) -> tuple[list[Frame], Grid]:
    """Slices of one series in the order of `read_dicom`, and its grid; pixels are not read.

    Raises
    ------
    ImageError
        As `read_dicom`.
    """
    return _in_order([read_header(path) for path in files], files, where)


def _in_order(
    headers: Sequence[Any], files: Sequence[Path], where: str
) -> tuple[list[Frame], Grid]:
    frames = [frame for h, path in zip(headers, files, strict=True) for frame in _frames(h, path)]
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
    colours = [p.name for h, p in zip(headers, files, strict=True) if h.get("SamplesPerPixel") != 1]
    if colours:
        raise ImageError(
            f"{where}: {len(colours)} files are in colour, e.g. {colours[0]}; expected one grey "
            "value a pixel"
        )


def _is_radiograph(header: Any) -> bool:
    return "ImagePositionPatient" not in header and str(header.get("Modality")) in _FLAT


def _radiograph(path: Path) -> tuple[NDArray[np.float32], Grid]:
    header = read_header(path)
    values = _pixels(path)
    if len(values) != 1:
        raise ImageError(f"{path}: holds {len(values)} frames without a place in the patient")
    if header.PhotometricInterpretation == "MONOCHROME1":
        values = values.max() + values.min() - values
    spacing = header.get("PixelSpacing") or header.get("ImagerPixelSpacing") or (1.0, 1.0)
    down, across = (float(mm) for mm in spacing)
    return values, Grid(values.shape[1:], np.diag([down, across, 1.0]))


def _frames(header: Any, path: Path) -> list[Frame]:
    """Frames of one file: of a classic one the file itself."""
    if "PerFrameFunctionalGroupsSequence" not in header:
        if int(header.get("NumberOfFrames") or 1) > 1:
            raise ImageError(f"{path}: several frames, and nothing says where each lies")
        return [_frame(path, 0, header, header, header, header)]
    shared = header.SharedFunctionalGroupsSequence[0]
    return [
        _frame(path, index, header, *(_group(own, shared, name, f"{path}: frame {index + 1}")
                                      for name in _GROUPS))
        for index, own in enumerate(header.PerFrameFunctionalGroupsSequence)
    ]  # fmt: skip


def _group(own: Any, shared: Any, name: str, where: str) -> Any:
    holder = own if name in own else shared
    if name not in holder:
        raise ImageError(f"{where} has no {name}; nothing says where it lies")
    return holder[name][0]


def _frame(path: Path, index: int, header: Any, place: Any, turn: Any, measures: Any) -> Frame:
    wanted = ((place, "ImagePositionPatient", 3), (turn, "ImageOrientationPatient", 6),
              (measures, "PixelSpacing", 2))  # fmt: skip
    missing = [name for holder, name, n in wanted if len(holder.get(name) or ()) != n]
    if missing:
        raise ImageError(
            f"{path}: no {', '.join(missing)}; nothing says where its pixels lie in the patient"
        )
    direction = np.array(turn.ImageOrientationPatient, np.float64).reshape(2, 3)
    lengths = np.linalg.norm(direction, axis=1)
    if np.abs(lengths - 1).max() > 1e-2 or abs(direction[0] @ direction[1]) > 1e-2:
        raise ImageError(f"{path}: ImageOrientationPatient is not two directions at right angles: "
                         f"{direction.ravel().tolist()}")  # fmt: skip
    row_mm, column_mm = (float(mm) for mm in measures.PixelSpacing)
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    across, down = direction / lengths[:, None]
    return Frame(
        path=path,
        index=index,
        position=np.array(place.ImagePositionPatient, np.float64),
        across=across,
        down=down,
        spacing=(column_mm, row_mm),
        shape=(int(header.Columns), int(header.Rows)),
        thickness=None if thickness in (None, "") else abs(float(thickness)),
    )


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
    if faults:
        raise ImageError(all_faults(f"{where}: not one volume", faults))
    return np.asarray(path / (len(frames) - 1))


def _pixels(path: Path) -> NDArray[np.float32]:
    """Rescaled values (frames, rows, columns) of one file."""
    from pydicom.pixels import apply_rescale

    header = read_header(path, pixels=True)
    syntax = getattr(header, "file_meta", {}).get("TransferSyntaxUID")
    if syntax is None:
        raise ImageError(f"{path}: says no transfer syntax; its pixels cannot be decoded")
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
    own = header.get("PerFrameFunctionalGroupsSequence")
    if own is None:
        plain: NDArray[np.float32] = np.asarray(apply_rescale(stored, header), np.float32)
        return plain
    values: NDArray[np.float32] = stored.astype(np.float32)
    shared = header.SharedFunctionalGroupsSequence[0]
    name = "PixelValueTransformationSequence"
    for index, frame in enumerate(own):
        holder = frame if name in frame else shared
        if name in holder:
            rule = holder[name][0]
            values[index] = values[index] * float(rule.RescaleSlope) + float(rule.RescaleIntercept)
    return values
