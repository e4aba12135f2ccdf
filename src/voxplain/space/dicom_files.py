"""DICOM files of a folder, found by their content and grouped into series."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from voxplain.errors import ImageError, needs_extra

_PREFIX_AT = 128
_SUFFIXES = (".dcm", ".ima", ".dicom")
_FIRST_GROUP = b"\x08\x00"  # a data set without prefix begins with group 8


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
    """Whether a file is DICOM: by its prefix, its suffix, or its first tag if it has neither."""
    if not path.is_file() or path.name.upper() == "DICOMDIR":
        return False
    with path.open("rb") as file:
        head = file.read(_PREFIX_AT + 4)
    if head[_PREFIX_AT:] == b"DICM" or path.suffix.lower() in _SUFFIXES:
        return True
    return not path.suffix and head[:2] == _FIRST_GROUP


@contextmanager
def unchecked_values() -> Iterator[None]:
    """Take values that break DICOM's rules as they are; pydicom's warnings would print them."""
    needs_extra("pydicom", "dicom", "reading DICOM")
    from pydicom.config import disable_value_validation

    with disable_value_validation():
        yield


@contextmanager
def well_formed(path: Path) -> Iterator[None]:
    """Refuse a file whose values are not of the type that DICOM asks for."""
    try:
        yield
    except (ValueError, TypeError, OverflowError, AttributeError, IndexError) as error:
        raise ImageError(
            f"{path}: a value is missing or not what DICOM asks for ({error}); repair the header"
        ) from None


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
    found_files = sorted(p for p in folder.rglob("*") if is_dicom(p))
    if found_files:
        with unchecked_values():
            for path in found_files:
                header = read_header(path)
                if "Rows" in header:
                    with well_formed(path):
                        group = _group_of(header)
                    groups.setdefault(group, []).append(path)
    if not groups:
        raise ImageError(f"{folder}: is a folder without DICOM images; give an image file, or the "
                         "folder of a DICOM series")  # fmt: skip
    found = [Series(k[0], k[1], k[2], tuple(files)) for k, files in groups.items()]
    return sorted(found, key=lambda s: (s.number is None, s.number or 0, s.uid))


def _group_of(header: Any) -> tuple[str, int | None, str, str]:
    """UID, number, modality; of files without a UID also the frame of reference."""
    uid = str(header.get("SeriesInstanceUID") or "")
    number = header.get("SeriesNumber")
    frame = "" if uid else str(header.get("FrameOfReferenceUID") or "")
    return (uid, None if number in (None, "") else int(number),
            str(header.get("Modality") or ""), frame)  # fmt: skip


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


def series_place(path: Path) -> tuple[Path, str | None]:
    """Split ``DIR#2`` into folder and choice; any other path has no choice."""
    folder, mark, choice = str(path).rpartition("#")
    if mark and not path.exists() and Path(folder).is_dir():
        return Path(folder), choice
    return path, None


def series_files(path: Path) -> tuple[Path, ...]:
    """Files of the DICOM series that a path means; empty if it means something else.

    Parameters
    ----------
    path
        Folder, ``DIR#2``, ``DIR#UID``, or one DICOM file.

    Raises
    ------
    ImageError
        As `choose_series`.
    """
    place, choice = series_place(path)
    if place.is_dir():
        return choose_series(place, choice).files
    return (path,) if is_dicom(path) else ()


def _listed(series: Sequence[Series]) -> str:
    return "\n".join(f"  #{place}: {one.describe()}" for place, one in enumerate(series, 1))
