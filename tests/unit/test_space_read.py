"""Which reader, which name, several files, and label maps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813

from voxplain.errors import GridError, ImageError, LabelError
from voxplain.space import read_image, read_labels, write_nifti
from voxplain.space.read import case_name
from voxplain.testing import phantoms
from voxplain.testing.phantoms import oblique_grid

DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the folder ../shared/data is absent")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ct.nii.gz", "ct"),
        ("ct.NII.GZ", "ct"),
        ("liver_012_0000.nii.gz", "liver_012"),
        ("_0000.nii", "_0000"),
        ("a.b.nii", "a.b"),
        ("x_12345.png", "x_12345"),
        ("scan.tiff", "scan"),
    ],
)
def test_case_names(name, expected):
    assert case_name(Path(name)) == expected


def test_several_files_are_channels(tmp_path):
    volume = phantoms.volume(n_channels=3)
    paths = [tmp_path / f"p_000{i}.nii.gz" for i in range(2)]
    write_nifti(paths[0], volume.data[0], volume.grid)
    write_nifti(paths[1], volume.data[1:], volume.grid)
    got = read_image(paths, channels=("a", "b", "c"))
    np.testing.assert_array_equal(got.data, volume.data)
    assert got.channels == ("a", "b", "c")
    assert got.name == "p"
    assert read_image([str(p) for p in paths], name="patient").name == "patient"


def test_channels_on_different_grids(tmp_path):
    write_nifti(tmp_path / "a.nii", phantoms.volume().data, oblique_grid())
    coarse = oblique_grid((5, 7, 11), (1.0, 1.0, 1.0))
    write_nifti(tmp_path / "b.nii", phantoms.volume().data, coarse)
    message = r"a\.nii has .*\(0\.7, 1\.1, 2\.3\) mm.*b\.nii has .*\(1, 1, 1\) mm.*resample"
    with pytest.raises(GridError, match=message):
        read_image([tmp_path / "a.nii", tmp_path / "b.nii"])


def test_wrong_number_of_channel_names(tmp_path):
    write_nifti(tmp_path / "a.nii", phantoms.volume().data, oblique_grid())
    with pytest.raises(ImageError, match="1 channels of data, 2 names"):
        read_image(tmp_path / "a.nii", channels=("ct", "pet"))


def test_files_that_are_not_there_or_not_known(tmp_path):
    with pytest.raises(ImageError, match=r"^no such file: .*missing\.nii\.gz$"):
        read_image(tmp_path / "missing.nii.gz")
    with pytest.raises(ImageError, match="is a folder without DICOM images; give an image file"):
        read_image(tmp_path)
    (tmp_path / "x.mha").touch()
    with pytest.raises(ImageError, match=r"unknown image format '\.mha'; known are \.nii, .*\.npy"):
        read_image(tmp_path / "x.mha")
    with pytest.raises(ImageError, match="no image file was given"):
        read_image([])


def test_nifti_says_its_own_spacing(tmp_path):
    write_nifti(tmp_path / "a.nii", phantoms.volume().data, oblique_grid())
    with pytest.raises(ImageError, match="says its own spacing"):
        read_image(tmp_path / "a.nii", spacing=(1, 1, 1))


@pytest.fixture
def label_file(tmp_path):
    labels = phantoms.labels()
    write_nifti(tmp_path / "seg.nii.gz", labels.layers, labels.grid)
    return tmp_path / "seg.nii.gz"


def test_names_from_a_mapping_a_file_or_the_file_beside(label_file):
    assert read_labels(label_file).region_names == (
        "background", "label_1", "label_2", "label_3",
    )  # fmt: skip
    other = label_file.with_name("names.json")
    other.write_text(json.dumps({"1": "liver", "2": "spleen", "9": "heart"}))
    expected = ("background", "liver", "spleen", "label_3", "heart")
    assert read_labels(label_file, other).region_names == expected
    assert read_labels(label_file, str(other)).region_names == expected
    other.rename(label_file.with_name("labels.json"))
    assert read_labels(label_file).region_names == expected
    assert read_labels(label_file, {1: "lung"}).region_names[1] == "lung"


@pytest.mark.parametrize("text", ["{", "[1, 2]", '{"liver": 1}'])
def test_names_that_cannot_be_read(label_file, text):
    names = label_file.with_name("names.json")
    names.write_text(text)
    with pytest.raises(LabelError, match=r"names\.json: expected names of labels as"):
        read_labels(label_file, names)
    with pytest.raises(LabelError, match="no such file"):
        read_labels(label_file, label_file.with_name("missing.json"))


def test_label_files_that_are_none(tmp_path):
    grid = oblique_grid()
    write_nifti(tmp_path / "f.nii", np.full(grid.shape, 0.5), grid)
    with pytest.raises(LabelError, match=r"f\.nii: a label map holds whole numbers"):
        read_labels(tmp_path / "f.nii")
    write_nifti(tmp_path / "n.nii", np.full(grid.shape, -2), grid)
    with pytest.raises(LabelError, match=r"n\.nii: labels are not negative, got -2"):
        read_labels(tmp_path / "n.nii")
    write_nifti(tmp_path / "c.nii", np.zeros((2, *grid.shape), np.uint8), grid)
    with pytest.raises(ImageError, match="a label map has one channel, got 2"):
        read_labels(tmp_path / "c.nii")
    (tmp_path / "x.jpg").touch()
    with pytest.raises(ImageError, match="JPEG changes values"):
        read_labels(tmp_path / "x.jpg")


def test_whole_floats_become_the_smallest_integer_type(tmp_path):
    grid = oblique_grid()
    data = np.zeros(grid.shape, np.float32)
    data[0] = 117
    write_nifti(tmp_path / "f.nii", data, grid)
    labels = read_labels(tmp_path / "f.nii")
    assert labels.layers.dtype == np.uint8
    assert labels.mask("label_117").sum() == 77


@needs_data
@pytest.mark.real
def test_real_ct_lies_where_simpleitk_puts_it():
    path = DATA / "ct_thorax_abdomen" / "ct.nii.gz"
    volume = read_image(path)
    other = sitk.ReadImage(str(path))
    assert volume.grid.shape == other.GetSize() == (122, 101, 112)
    assert volume.grid.spacing == pytest.approx((3, 3, 3))
    assert (volume.data.min(), volume.data.max()) == (-1207, 3382)
    for corner in volume.grid.corners().astype(int).tolist():
        there = np.array(other.TransformIndexToPhysicalPoint(corner)) * [-1, -1, 1]
        np.testing.assert_allclose(volume.grid.to_world(corner), there, atol=1e-3)
        assert volume.data[(0, *corner)] == other.GetPixel(corner)


@needs_data
@pytest.mark.real
def test_real_labels_take_the_names_beside_them():
    labels = read_labels(DATA / "ct_thorax_abdomen" / "segmentation.nii.gz")
    assert labels.label("aorta") == 52
    assert labels.mask("aorta").any()
    assert not labels.mask("heart").any()  # not in the field of view
    assert labels.layers.dtype == np.uint8


@needs_data
@pytest.mark.real
def test_real_radiograph():
    volume = read_image(sorted((DATA / "cxr").glob("*.png"))[0])
    assert volume.data.shape[1:] == (320, 320)
    assert 0 <= volume.data.min() < volume.data.max() <= 255
