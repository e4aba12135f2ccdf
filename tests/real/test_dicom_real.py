"""A real CT series, JPEG 2000 compressed and without identifiers, as SimpleITK reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from voxplain.space import read_image, read_labels

SERIES = Path(__file__).parents[3] / "shared" / "data" / "ct_dicom"
pytest.importorskip("pydicom")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SERIES.is_dir(), reason="../shared/data/ct_dicom is not there"),
]


def test_values_and_affine_are_those_of_simpleitk() -> None:
    image = read_image(SERIES / "series")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(SERIES / "series")))
    theirs = reader.Execute()
    np.testing.assert_array_equal(image.data[0], sitk.GetArrayFromImage(theirs).transpose(2, 1, 0))
    lps = np.eye(4)
    lps[:3, :3] = np.array(theirs.GetDirection()).reshape(3, 3) @ np.diag(theirs.GetSpacing())
    lps[:3, 3] = theirs.GetOrigin()
    np.testing.assert_allclose(image.grid.affine, np.diag([-1, -1, 1, 1]) @ lps, atol=1e-6)


def test_its_labels_lie_on_it() -> None:
    image = read_image(SERIES / "series")
    labels = read_labels(SERIES / "segmentation.nii.gz")
    assert sorted(labels.grid.shape) == sorted(image.grid.shape)
    corners = np.sort(labels.grid.to_world(labels.grid.corners()), axis=0)[[0, -1]]
    ours = np.sort(image.grid.to_world(image.grid.corners()), axis=0)[[0, -1]]
    np.testing.assert_allclose(corners[:, :2], ours[:, :2], atol=1.0)
