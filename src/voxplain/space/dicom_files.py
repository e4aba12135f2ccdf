"""DICOM files of a folder, found by their content and grouped into series."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.errors import ImageError, needs_extra

_PREFIX_AT = 128
_SUFFIXES = (".dcm", ".ima", ".dicom")


@dataclass(frozen=True)
class Series:
    """Image files of one series; nothing of it names the patient.

    Parameters
    ----------
    uid
        Series Instance UID; empty where the files have none.
    number
        Series Number, or None.
    modality
        ``CT``, ``MR``, …
    files
        One a slice (or one with many frames), in the order of their names.
    """

    uid: str
    number: int | None
    modality: str
    files: tuple[Path, ...]

    def describe(self) -> str:
        """One short phrase without identifiers."""
        number = "" if self.number is None else f"series {self.number}, "
        return f"{self.modality or 'unknown modality'}, {number}{len(self.files)} files"


def is_dicom(path: Path) -> bool:
    """Whether a file is DICOM: by its prefix, or its suffix where it has no prefix."""
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    with path.open("rb") as file:
        head = file.read(_PREFIX_AT + 4)
    return head[_PREFIX_AT:] == b"DICM" or path.suffix.lower() in _SUFFIXES


def read_header(path: Path, *, pixels: bool = False) -> Any:
    """Read a file's data set.

    Raises
    ------
    MissingExtraError
        If pydicom is not installed.
    ImageError
        If the file is damaged.
    """
    pydicom = needs_extra("pydicom", "dicom", "reading DICOM")
    from pydicom.errors import InvalidDicomError

    try:
        found = pydicom.dcmread(path, stop_before_pixels=not pixels, force=True)
        found.get("Rows")  # a damaged file fails here
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, AttributeError) as error:
        raise ImageError(f"{path}: cannot be read as DICOM ({error})") from None
    return found


def find_series(folder: Path) -> list[Series]:
    """Group the image files in a folder, and in folders below it, into series.

    Files that are not DICOM, or hold no pixels (reports, structure sets), are left out.

    Parameters
    ----------
    folder
        Searched wholly.

    Returns
    -------
    list of Series
        Those with a number first, by number.

    Raises
    ------
    ImageError
        If there is none, or a file is damaged.
    """
    groups: dict[tuple[str, int | None, str, str], list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if is_dicom(p)):
        header = read_header(path)
        if "Rows" not in header:
            continue
        uid = str(header.get("SeriesInstanceUID") or "")
        number = header.get("SeriesNumber")
        # files without a UID are told apart by what else they say
        frame = "" if uid else str(header.get("FrameOfReferenceUID") or "")
        key = (uid, None if number in (None, "") else int(number),
               str(header.get("Modality") or ""), frame)  # fmt: skip
        groups.setdefault(key, []).append(path)
    if not groups:
        raise ImageError(f"{folder}: is a folder without DICOM images; give an image file, or the "
                         "folder of a DICOM series")  # fmt: skip
    found = [Series(k[0], k[1], k[2], tuple(files)) for k, files in groups.items()]
    return sorted(found, key=lambda s: (s.number is None, s.number or 0, s.uid))


def choose_series(folder: Path, choice: str | None) -> Series:
    """Return the only series of a folder, or the one asked for.

    Parameters
    ----------
    folder
        See `find_series`.
    choice
        Its place in the list (1, 2, …) or its Series Instance UID; None if there is only one.

    Raises
    ------
    ImageError
        If there are several and none was chosen, or the choice is not there; the message
        lists them.
    """
    series = find_series(folder)
    if choice is None and len(series) == 1:
        return series[0]
    for place, one in enumerate(series, 1):
        if choice in (str(place), one.uid):
            return one
    raise ImageError(
        f"{folder}: {'holds' if choice is None else f'no series {choice!r} among'} "
        f"{len(series)} series; choose one with {folder.name}#N\n{_listed(series)}"
    )


def _listed(series: Sequence[Series]) -> str:
    return "\n".join(f"  #{place}: {one.describe()}" for place, one in enumerate(series, 1))
