"""The DICOM series that a result belongs to: its headers, completed where they lack something."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.errors import ImageError, needs_extra
from voxplain.space.dicom import sorted_slices
from voxplain.space.dicom_files import choose_series, read_header
from voxplain.space.grid import Grid

_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID")
_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
}
_ORIGIN = ("Modality", "FrameOfReferenceUID", "StudyDate", "SeriesTime", "SeriesNumber",
           "ImagePositionPatient", "ImageOrientationPatient")  # fmt: skip
# what a referencing object must repeat, empty if the source has no value
_REPEATED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName", "PositionReferenceIndicator",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Headers of a series, in the order of its slices.

    Parameters
    ----------
    headers
        One a slice, without pixels; every UID is there.
    grid
        Where the slices lie.
    generated
        Names of the UIDs that the files lack and that were made up, from the files' content.
    """

    headers: tuple[Any, ...]
    grid: Grid
    generated: tuple[str, ...]


def read_source(place: Path) -> Source:
    """Read the headers of a series; missing UIDs are generated, the same in every run.

    Parameters
    ----------
    place
        Folder of the series; ``DIR#2`` is the second of several.

    Raises
    ------
    MissingExtraError
        If highdicom is not installed.
    ImageError
        If there is no series, it is not one volume, or each of its files holds many frames.
    """
    needs_extra("highdicom", "dicom", "writing DICOM")
    folder, mark, choice = str(place).rpartition("#")
    is_chosen = bool(mark) and not place.exists()
    series = choose_series(Path(folder), choice) if is_chosen else choose_series(place, None)
    frames, grid = sorted_slices(series.files, str(place))
    if len({frame.path for frame in frames}) != len(frames):
        raise ImageError(f"{place}: files with many frames cannot be referenced slice by slice")
    headers = tuple(read_header(frame.path) for frame in frames)
    origin = [str(headers[0].get(name) or "") for name in _ORIGIN]
    generated = sorted({name for header in headers for name in _complete(header, origin)})
    return Source(headers, grid, tuple(generated))


def _complete(header: Any, origin: list[str]) -> list[str]:
    """Fill what references need into a header in memory; names of the UIDs made up.

    UIDs follow from `origin`, what the first slice says of the series, and for a slice from its
    own position.
    """
    from pydicom.uid import generate_uid

    meta = getattr(header, "file_meta", None) or {}
    made = []
    for name in _UIDS:
        if header.get(name):
            continue
        if name == "SOPInstanceUID" and meta.get("MediaStorageSOPInstanceUID"):
            header.SOPInstanceUID = meta.get("MediaStorageSOPInstanceUID")
            continue
        own = [str(header.get("ImagePositionPatient"))] if name == "SOPInstanceUID" else []
        setattr(header, name, generate_uid(entropy_srcs=[name, *origin, *own]))
        made.append(name)
    if not header.get("SOPClassUID"):
        known = _CLASSES.get(str(header.get("Modality")), _CLASSES["CT"])
        header.SOPClassUID = meta.get("MediaStorageSOPClassUID") or known
    for name in _REPEATED:
        if name not in header:
            setattr(header, name, "")
    return made
