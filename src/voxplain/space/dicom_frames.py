"""Slices of a DICOM file and where each lies in the patient, before pixels are read."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ImageError
from voxplain.space.dicom_files import well_formed

_GROUPS = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")


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


def frames_of(header: Any, path: Path) -> list[Frame]:
    """List the slices of one file: of a classic one the file itself.

    Raises
    ------
    ImageError
        If the file does not say where a slice lies, or says it in values that make no sense.
    """
    with well_formed(path):
        return _frames(header, path)


def _frames(header: Any, path: Path) -> list[Frame]:
    n_frames = int(header.get("NumberOfFrames") or 1)
    if "PerFrameFunctionalGroupsSequence" not in header:
        if n_frames > 1:
            raise ImageError(f"{path}: several frames, and nothing says where each lies")
        return [_frame(path, 0, header, header, header, header)]
    if len(header.PerFrameFunctionalGroupsSequence) != n_frames:
        raise ImageError(
            f"{path}: holds {n_frames} frames and says of "
            f"{len(header.PerFrameFunctionalGroupsSequence)} where they lie"
        )
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
    if not (np.abs(lengths - 1).max() <= 1e-2 and abs(direction[0] @ direction[1]) <= 1e-2):
        raise ImageError(f"{path}: ImageOrientationPatient is not two directions at right angles: "
                         f"{direction.ravel().tolist()}")  # fmt: skip
    position = np.array(place.ImagePositionPatient, np.float64)
    if not np.isfinite(position).all():
        raise ImageError(f"{path}: ImagePositionPatient is not three numbers: {position.tolist()}")
    row_mm, column_mm = (float(mm) for mm in measures.PixelSpacing)
    if not (0 < row_mm < np.inf and 0 < column_mm < np.inf):
        raise ImageError(f"{path}: PixelSpacing is not two lengths: {(row_mm, column_mm)} mm")
    thickness = measures.get("SpacingBetweenSlices") or measures.get("SliceThickness")
    across, down = direction / lengths[:, None]
    return Frame(
        path=path,
        index=index,
        position=position,
        across=across,
        down=down,
        spacing=(column_mm, row_mm),
        shape=(int(header.Columns), int(header.Rows)),
        thickness=None if thickness in (None, "") else abs(float(thickness)),
    )
