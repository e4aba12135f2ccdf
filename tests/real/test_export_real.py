"""A real series, JPEG 2000 compressed and without UIDs, and the DICOM written for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from voxplain.attribution import InputXGradient, explain
from voxplain.export import export_dicom
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.space import read_image

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")
SERIES = Path(__file__).parents[3] / "shared" / "data" / "ct_dicom" / "series"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SERIES.is_dir(), reason="../shared/data/ct_dicom is not there"),
]


def test_every_frame_lies_on_its_slice(tmp_path: Path) -> None:
    image = read_image(SERIES)
    network = torch.nn.Conv3d(1, 2, 1)
    with torch.no_grad():  # bone is what is denser than 200 HU
        network.weight[:] = torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1)
        network.bias[:] = torch.tensor([0.0, -200.0])
    model = wrap(network, classes=("background", "bone"), channels=image.channels, rank=3)
    explanation = explain(model, image, "class:bone", InputXGradient(), compute=Compute("cpu"))
    files, generated = export_dicom(explanation, SERIES, tmp_path / "out")
    assert generated == ("SeriesInstanceUID", "StudyInstanceUID")
    key, kept, prediction = files

    slices = {}
    for file in SERIES.iterdir():
        header = pydicom.dcmread(file, stop_before_pixels=True)
        place = tuple(float(mm) for mm in header.ImagePositionPatient)
        slices[place] = str(header.file_meta.MediaStorageSOPInstanceUID)
    at = {
        tuple(np.round(image.grid.to_world((0, 0, z)) * (-1, -1, 1), 3)): z
        for z in range(image.grid.shape[2])
    }
    mask = explanation.prediction.mask("bone")
    for file, values in ((kept, explanation["bone"].values[0]), (prediction, mask)):
        written = pydicom.dcmread(file)
        found = set()
        for index, frame in enumerate(written.PerFrameFunctionalGroupsSequence):
            place = tuple(float(mm) for mm in frame.PlanePositionSequence[0].ImagePositionPatient)
            assert place in slices
            (source,) = frame.DerivationImageSequence[0].SourceImageSequence
            assert source.ReferencedSOPInstanceUID == slices[place]
            z = at[tuple(np.round(place, 3))]
            np.testing.assert_array_equal(written.pixel_array[index], values[:, :, z].T)
            found.add(z)
        assert found >= set(np.flatnonzero(values.any(axis=(0, 1))))  # nothing is left out
    first = pydicom.dcmread(key)
    assert first.pixel_array.ndim == 3
    for file in files:
        header = pydicom.dcmread(file)
        assert not str(header.PatientName)
        assert not header.PatientID
        assert header.StudyInstanceUID == first.StudyInstanceUID
    assert {item.ReferencedSOPInstanceUID for item in first.SourceImageSequence} == set(
        slices.values()
    )
