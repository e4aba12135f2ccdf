"""DICOM series written slice by slice, to try and to test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.errors import needs_extra

_INTERCEPT = -1024


def write_series(
    folder: Path | str,
    values: NDArray[np.integer[Any]],
    directions: ArrayLike,
    spacing: Sequence[float],
    origin: ArrayLike,
    *,
    order: Sequence[int] | None = None,
    number: int = 1,
    patient: str = "",
) -> list[Path]:
    """Write a CT series of one file a slice.

    Parameters
    ----------
    folder
        Made if it is missing.
    values
        (columns, rows, slices) in HU, whole numbers from -1024 on.
    directions
        3×3, a rotation: columns are the directions in which column, row and slice index grow,
        LPS.
    spacing
        mm between columns, rows and slices.
    origin
        Centre of the first voxel, LPS mm.
    order
        Which slice each file holds, by the files' names; default ascending.
    number
        Series Number.
    patient
        Name and ID of the patient; empty as in an anonymised series.

    Returns
    -------
    list of pathlib.Path
        The files.
    """
    pydicom = needs_extra("pydicom", "dicom", "writing DICOM")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    assert pydicom is not None
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    turn = np.asarray(directions, np.float64)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    files = []
    for name, index in enumerate(order if order is not None else range(values.shape[2])):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = CTImageStorage
        meta.MediaStorageSOPInstanceUID = generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        path = place / f"{name:04d}.dcm"
        one = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        one.StudyInstanceUID, one.SeriesInstanceUID, one.FrameOfReferenceUID = study, series, frame
        one.PatientName, one.PatientID, one.PatientBirthDate, one.PatientSex = (
            patient,
            patient,
            "",
            "",
        )
        one.StudyDate, one.StudyTime, one.StudyID, one.AccessionNumber = "", "", "", ""
        one.ReferringPhysicianName, one.Manufacturer, one.PositionReferenceIndicator = "", "", ""
        one.Modality, one.SeriesNumber, one.InstanceNumber = "CT", number, name + 1
        at = np.asarray(origin, np.float64) + turn[:, 2] * spacing[2] * index
        one.ImagePositionPatient = [f"{mm:.8f}"[:16] for mm in at]
        one.ImageOrientationPatient = [f"{x:.12f}"[:16] for x in turn[:, :2].T.ravel()]
        one.PixelSpacing = [spacing[1], spacing[0]]
        one.SliceThickness = spacing[2]
        one.Rows, one.Columns = values.shape[1], values.shape[0]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 0
        one.RescaleSlope, one.RescaleIntercept, one.RescaleType = 1, _INTERCEPT, "HU"
        stored = (values[:, :, index].T.astype(np.int32) - _INTERCEPT).astype("<u2")
        one.PixelData = stored.tobytes()
        one.save_as(path)
        files.append(path)
    return files


def write_frames(
    series: Path | str, folder: Path | str, *, order: Sequence[int] | None = None
) -> Path:
    """Write what `write_series` wrote as one file of many frames.

    Parameters
    ----------
    series
        Folder that `write_series` wrote.
    folder
        Made if it is missing.
    order
        Which of the series' files each frame holds, by their names; default ascending.

    Returns
    -------
    pathlib.Path
        The file, an Enhanced CT image.
    """
    pydicom = needs_extra("pydicom", "dicom", "writing DICOM")
    from pydicom.dataset import Dataset
    from pydicom.uid import EnhancedCTImageStorage

    files = [pydicom.dcmread(file) for file in sorted(Path(series).iterdir())]
    chosen = [files[i] for i in (order if order is not None else range(len(files)))]
    many = chosen[0]
    many.SOPClassUID = many.file_meta.MediaStorageSOPClassUID = EnhancedCTImageStorage
    plane, measures, rule, shared = Dataset(), Dataset(), Dataset(), Dataset()
    plane.ImageOrientationPatient = many.ImageOrientationPatient
    measures.PixelSpacing, measures.SliceThickness = many.PixelSpacing, many.SliceThickness
    rule.RescaleSlope, rule.RescaleIntercept = many.RescaleSlope, many.RescaleIntercept
    shared.PlaneOrientationSequence = [plane]
    shared.PixelMeasuresSequence = [measures]
    shared.PixelValueTransformationSequence = [rule]
    frames = []
    for one in chosen:
        place, frame = Dataset(), Dataset()
        place.ImagePositionPatient = one.ImagePositionPatient
        frame.PlanePositionSequence = [place]
        frames.append(frame)
    many.SharedFunctionalGroupsSequence = [shared]
    many.PerFrameFunctionalGroupsSequence = frames
    many.PixelData = b"".join(one.PixelData for one in chosen)
    many.NumberOfFrames = len(chosen)
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(many, name)
    Path(folder).mkdir(parents=True, exist_ok=True)
    path = Path(folder) / "frames.dcm"
    many.save_as(path)
    return path
