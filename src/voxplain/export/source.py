"""The DICOM series that a result belongs to: its headers, completed where they lack something."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import ImageError, OutputError, needs_extra
from voxplain.space.dicom import is_radiograph, sorted_slices
from voxplain.space.dicom_files import read_header, series_files

_CLASSES = {
    "CT": "1.2.840.10008.5.1.4.1.1.2",
    "MR": "1.2.840.10008.5.1.4.1.1.4",
    "PT": "1.2.840.10008.5.1.4.1.1.128",
    "CR": "1.2.840.10008.5.1.4.1.1.1",
    "DX": "1.2.840.10008.5.1.4.1.1.1.1",
}
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
# what every DICOM object repeats of patient and study, empty if the source has no value
_REPEATED = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime",
    "StudyID", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A series that written objects reference.

    Parameters
    ----------
    headers
        One a slice in the order of the slices, or a single one with many frames; without pixels
        and with patient and study blank, every UID is there.
    patient
        First header with patient and study as the file has them.
    order
        Slice that each frame holds.
    generated
        Names of the UIDs that the files lack and that were made up.
    """

    headers: tuple[Any, ...]
    patient: Any
    order: tuple[int, ...]
    generated: tuple[str, ...]

    @property
    def number(self) -> int:
        """Series Number; 0 if there is none."""
        return int(self.patient.get("SeriesNumber") or 0)

    def frames(self, values: NDArray[Any]) -> NDArray[Any]:
        """Values on the image's grid as frames.

        Parameters
        ----------
        values
            (columns, rows, slices); of a radiograph (rows, columns). More axes may follow.

        Returns
        -------
        numpy.ndarray
            (frames, rows, columns), in the order of the files.
        """
        if is_radiograph(self.patient):
            return values[None]
        return np.ascontiguousarray(values.swapaxes(0, 2)[list(self.order)])


def read_sources(places: Sequence[Path], content: str) -> list[Source]:
    """Read the headers of the series that are the channels of an image.

    Parameters
    ----------
    places
        Folders, one a channel; ``DIR#2`` is the second series of several.
    content
        Hash of the image; missing UIDs follow from it, so that they are the same in every run,
        and others for other images.

    Raises
    ------
    MissingExtraError
        If highdicom is not installed.
    ImageError
        If there is no series, or it is not one volume.
    OutputError
        If the series belong to several patients or studies.
    """
    needs_extra("highdicom", "dicom", "writing DICOM")
    read = [_slices(place) for place in places]
    every = [header for headers, _ in read for header in headers]
    for name, what in (("PatientID", "patients"), ("StudyInstanceUID", "studies")):
        known = _known(every, name)
        if len(known) > 1:
            raise OutputError(
                f"the series are of {len(known)} {what}, and a result is filed under one; give "
                f"channels of one of the {what}"
            )
    study = next(iter(_known(every, "StudyInstanceUID")), "")
    return [
        _source(headers, order, study, (content, str(channel)))
        for channel, (headers, order) in enumerate(read)
    ]


def _slices(place: Path) -> tuple[list[Any], tuple[int, ...]]:
    """Headers in the order of the slices, and the slice that each frame holds."""
    files = series_files(place)
    if not files:
        raise ImageError(f"{place}: is no DICOM series; give the folder of the one explained")
    slices = sorted_slices(files, str(place))
    paths = [path for path, _ in slices]
    if len(set(paths)) == len(paths):
        return [read_header(path) for path in paths], tuple(range(len(paths)))
    if len(files) > 1:
        raise ImageError(
            f"{place}: {len(files)} files with many frames each; one such file, or files of one "
            "slice each, can be referenced"
        )
    order = np.argsort([index for _, index in slices])
    return [read_header(paths[0])], tuple(order.tolist())


def _known(headers: Iterable[Any], name: str) -> list[str]:
    return sorted({str(header.get(name)) for header in headers if header.get(name)})


def _source(
    headers: list[Any], order: tuple[int, ...], study: str, content: tuple[str, str]
) -> Source:
    made: set[str] = set()
    frame = next(iter(_known(headers, "FrameOfReferenceUID")), "")
    for place, header in enumerate(headers):
        meta = getattr(header, "file_meta", None) or {}
        known = {
            "StudyInstanceUID": study,
            "FrameOfReferenceUID": frame,
            "SOPInstanceUID": str(meta.get("MediaStorageSOPInstanceUID") or ""),
        }
        _complete(header, known, content, place, made)
        if not header.get("SOPClassUID"):
            own = _CLASSES.get(str(header.get("Modality")), _SECONDARY_CAPTURE)
            header.SOPClassUID = meta.get("MediaStorageSOPClassUID") or own
    headers[0].decode()  # before its character set goes
    patient = deepcopy(headers[0])
    for header in headers:
        header.pop("SpecificCharacterSet", None)
        for name in _REPEATED:
            setattr(header, name, "")
    return Source(tuple(headers), patient, order, tuple(sorted(made)))


def _complete(
    header: Any, known: dict[str, str], content: tuple[str, str], place: int, made: set[str]
) -> None:
    """Fill the UIDs that a header in memory lacks; note in `made` which were made up."""
    from pydicom.uid import generate_uid

    image, channel = content
    entropy = {
        "StudyInstanceUID": [image],
        "FrameOfReferenceUID": [image],
        "SeriesInstanceUID": [image, channel],
        "SOPInstanceUID": [image, channel, str(place)],
    }
    for name, origin in entropy.items():
        if header.get(name):
            continue
        if name == "FrameOfReferenceUID" and is_radiograph(header):
            header.pop(name, None)
            continue
        if not known.get(name):
            made.add(name)
        setattr(header, name, known.get(name) or generate_uid(entropy_srcs=[name, *origin]))
