"""NIfTI in and out, with SimpleITK as the other reader."""

from __future__ import annotations

import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st

from voxplain.errors import GridError, ImageError, OutputError
from voxplain.space import Grid, nifti, read_image, read_labels, write_nifti
from voxplain.testing import phantoms
from voxplain.testing.phantoms import oblique_grid
from voxplain.testing.strategies import grids

LPS = np.diag([-1.0, -1.0, 1.0])


def save(path, data, affine=None, header=None, **codes):
    affine = oblique_grid().affine if affine is None else affine
    image = nibabel.Nifti1Image(data, affine, header)
    for name, value in codes.items():
        getattr(image, f"set_{name}")(affine, value)
    nibabel.save(image, path)
    return path


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint16, np.float32, np.float64])
def test_types_are_read_as_float32(tmp_path, dtype):
    data = (np.arange(385).reshape(5, 7, 11) - (0 if np.dtype(dtype).kind == "u" else 99)) % 256
    path = save(tmp_path / "ct.nii.gz", data.astype(dtype))
    volume = read_image(path)
    assert volume.data.dtype == np.float32
    assert volume.data.flags.c_contiguous
    np.testing.assert_array_equal(volume.data[0], data)
    assert volume.grid.matches(oblique_grid())
    assert volume.name == "ct"
    assert volume.channels == ("channel_0",)


def test_scaling_is_applied(tmp_path):
    header = nibabel.Nifti1Header()
    header.set_data_dtype(np.int16)
    image = nibabel.Nifti1Image(np.zeros((5, 7, 11)), oblique_grid().affine, header)
    path = tmp_path / "scaled.nii"
    nibabel.save(image, path)
    raw = bytearray(path.read_bytes())
    raw[112:120] = struct.pack("<ff", 0.5, -1024.0)  # scl_slope, scl_inter
    stored = np.arange(385, dtype="<i2").reshape(5, 7, 11, order="F")
    raw[352:] = stored.tobytes(order="F")
    path.write_bytes(raw)
    np.testing.assert_allclose(read_image(path).data[0], stored * 0.5 - 1024)


def test_channels_are_last_on_disk(tmp_path):
    data = np.random.default_rng(0).normal(size=(5, 7, 11, 3)).astype(np.float32)
    volume = read_image(save(tmp_path / "mr.nii.gz", data), channels=("t1", "t2", "flair"))
    np.testing.assert_array_equal(volume.data, np.moveaxis(data, -1, 0))
    assert volume.channels == ("t1", "t2", "flair")
    assert volume.data.flags.c_contiguous


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((5, 7), (1, 5, 7, 1)), ((5, 7, 1), (1, 5, 7, 1)), ((5, 7, 11, 1), (1, 5, 7, 11)),
     ((5, 7, 11, 2, 1), (2, 5, 7, 11))],
)  # fmt: skip
def test_short_and_long_shapes(tmp_path, shape, expected):
    data = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    volume = read_image(save(tmp_path / "x.nii", data))
    assert volume.data.shape == expected
    np.testing.assert_array_equal(np.moveaxis(volume.data, 0, -1).ravel(), data.ravel())


@pytest.mark.parametrize("shape", [(5, 7, 11, 1, 3), (5, 7, 2, 2, 2), (5,)])
def test_other_shapes_are_refused(tmp_path, shape):
    path = save(tmp_path / "x.nii", np.zeros(shape, np.float32))
    with pytest.raises(ImageError, match="expected 3 axes, or 4 with channels last"):
        read_image(path)


def test_sform_goes_before_qform_and_qform_before_spacing(tmp_path):
    data = np.zeros((5, 7, 11), np.float32)
    sform, qform = oblique_grid(seed=1).affine, oblique_grid(seed=2).affine
    image = nibabel.Nifti1Image(data, sform)
    image.set_qform(qform, 1)
    for code, expected in ((2, sform), (0, qform)):
        image.set_sform(sform, code)
        nibabel.save(image, tmp_path / "x.nii")
        grid = read_image(tmp_path / "x.nii").grid
        np.testing.assert_allclose(grid.affine, expected, atol=1e-4)


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_units_become_millimetres_as_in_itk(tmp_path, unit, factor):
    image = nibabel.Nifti1Image(np.zeros((5, 7, 11), np.float32), oblique_grid().affine)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "x.nii")
    grid = read_image(tmp_path / "x.nii").grid
    np.testing.assert_allclose(grid.spacing, np.multiply((0.7, 1.1, 2.3), factor), rtol=1e-5)
    other = sitk.ReadImage(str(tmp_path / "x.nii"))
    np.testing.assert_allclose(grid.spacing, other.GetSpacing(), rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_not_finite_names_the_file(tmp_path, value):
    data = np.zeros((5, 7, 11), np.float32)
    data[1, 2, 3] = value
    with pytest.raises(ImageError, match=r"x\.nii\.gz: 1 of 385 voxels are NaN or infinite"):
        read_image(save(tmp_path / "x.nii.gz", data))


def test_too_large_for_float32_is_refused(tmp_path):
    data = np.full((5, 7, 11), 1e300)
    with pytest.raises(ImageError, match="385 of 385 voxels are NaN or infinite"):
        read_image(save(tmp_path / "x.nii.gz", data))


def test_complex_and_rgb_voxels_are_refused(tmp_path):
    path = save(tmp_path / "c.nii", np.zeros((5, 7, 11), np.complex64))
    with pytest.raises(ImageError, match="voxels are complex64, expected one real number"):
        read_image(path)
    rgb = np.zeros((5, 7, 11), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ImageError, match="voxels are RGB"):
        read_image(save(tmp_path / "rgb.nii", rgb))


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("keep", [0, 10, 200, 400, 0.5, 0.95])
def test_truncated(tmp_path, name, keep):
    data = np.random.default_rng(0).normal(size=(15, 17, 11)).astype(np.float32)
    path = save(tmp_path / name, data)
    raw = path.read_bytes()
    path.write_bytes(raw[: keep if isinstance(keep, int) else int(len(raw) * keep)])
    with pytest.raises(ImageError, match=r"cannot be read as NIfTI.*damaged, cut short"):
        read_image(path)


@pytest.mark.parametrize("name", ["x.nii", "x.nii.gz"])
@pytest.mark.parametrize("text", ["i am text\n", "i am text\n" * 100])
def test_text_named_nifti(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(ImageError, match="cannot be read as NIfTI"):
        read_image(tmp_path / name)
    (tmp_path / "z.nii.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(ImageError, match="cannot be read as NIfTI"):
        read_image(tmp_path / "z.nii.gz")


@pytest.mark.parametrize(
    ("affine", "message"),
    [
        (np.diag([0.0, 0, 0, 1]), "singular"),
        (np.diag([1.0, 0, 1, 1]), "singular"),
        (np.array([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "singular"),
        (np.diag([1.0, np.nan, 1, 1]), "NaN or Inf"),
    ],
)
def test_unusable_affine(tmp_path, affine, message):
    image = nibabel.Nifti1Image(np.zeros((5, 7, 11), np.float32), np.eye(4))
    image.header["sform_code"] = 1
    image.header["qform_code"] = 0
    for row, values in zip(("srow_x", "srow_y", "srow_z"), affine, strict=False):
        image.header[row] = values
    raw = bytearray(image.header.binaryblock) + bytes(4) + bytes(4 * 385)
    (tmp_path / "x.nii").write_bytes(raw)
    with pytest.raises(ImageError, match=rf"x\.nii: .*{message}"):
        read_image(tmp_path / "x.nii")


# -- writing ------------------------------------------------------------------------------


def physical_points_agree(path, data, grid: Grid) -> None:
    """SimpleITK finds the same values at the same places."""
    image = sitk.ReadImage(str(path))
    assert image.GetSize() == grid.shape
    for index in np.ndindex(grid.shape):
        if sum(index) % 3 == 0:
            there = LPS @ np.array(image.TransformIndexToPhysicalPoint(index))
            np.testing.assert_allclose(there, grid.to_world(index), atol=2e-3)
            assert image.GetPixel(index) == pytest.approx(float(data[index]))


@settings(max_examples=25)
@given(grid=grids(3, max_length=6), seed=st.integers(0, 99))
def test_written_files_lie_where_they_should(tmp_path_factory, grid, seed):
    path = tmp_path_factory.mktemp("nifti") / "a.nii.gz"
    data = np.random.default_rng(seed).normal(size=grid.shape).astype(np.float32)
    write_nifti(path, data, grid)
    back = read_image(path)
    assert back.grid.matches(grid)
    assert back.grid.orientation == grid.orientation
    np.testing.assert_array_equal(back.data[0], data)
    physical_points_agree(path, data, grid)
    header = nibabel.load(path).header
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    assert header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(header.get_qform(), grid.affine, atol=1e-3)


def test_channels_are_written_last_and_only_if_several(tmp_path):
    volume = phantoms.volume(n_channels=3)
    write_nifti(tmp_path / "a.nii.gz", volume.data, volume.grid)
    assert nibabel.load(tmp_path / "a.nii.gz").shape == (5, 7, 11, 3)
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").data, volume.data)
    write_nifti(tmp_path / "b.nii", volume.data[:1], volume.grid)
    assert nibabel.load(tmp_path / "b.nii").shape == (5, 7, 11)


def test_a_sheared_affine_has_no_qform(tmp_path):
    affine = oblique_grid().affine.copy()
    affine[:3, 2] += 0.3 * affine[:3, 1]  # a tilted gantry
    grid = Grid((5, 7, 11), affine)
    write_nifti(tmp_path / "a.nii", np.zeros(grid.shape), grid)
    header = nibabel.load(tmp_path / "a.nii").header
    assert (header["sform_code"], header["qform_code"]) == (1, 0)
    assert read_image(tmp_path / "a.nii").grid.matches(grid)


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        (np.array([0, 1], bool), None, np.uint8),
        (np.array([0, 255], np.int64), None, np.uint8),
        (np.array([0, 256], np.int64), None, np.uint16),
        (np.array([0, 70000], np.int64), None, np.uint32),
        (np.array([-1, 200], np.int64), None, np.int16),
        (np.array([0, 1], np.float64), None, np.float32),
        (np.array([0, 1], np.float64), np.float64, np.float64),
        (np.array([0, 1], np.uint8), np.float32, np.float32),
        (np.array([0.0, 7.0]), np.uint8, np.uint8),
    ],
)
def test_type_on_disk(tmp_path, values, dtype, expected):
    grid = oblique_grid((2, 3, 4))
    data = np.zeros(grid.shape, values.dtype)
    data[:, 0, 0] = values
    write_nifti(tmp_path / "a.nii", data, grid, dtype)
    image = nibabel.load(tmp_path / "a.nii")
    assert image.get_data_dtype() == expected
    np.testing.assert_array_equal(np.asarray(image.dataobj), data)
    slope, _ = image.header.get_slope_inter()
    assert slope in (None, 1.0)


@pytest.mark.parametrize(
    ("value", "dtype"), [(300, np.uint8), (-1, np.uint8), (0.5, np.uint8), (np.nan, np.int16)]
)
def test_values_that_do_not_fit_are_refused(tmp_path, value, dtype):
    grid = oblique_grid((2, 3, 4))
    with pytest.raises(OutputError, match="cannot be kept as"):
        write_nifti(tmp_path / "a.nii", np.full(grid.shape, value), grid, dtype)
    assert list(tmp_path.iterdir()) == []


def test_a_picture_s_plane_lies_as_itk_places_pictures(tmp_path):
    from PIL import Image

    pixels = np.arange(35, dtype=np.uint8).reshape(5, 7)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    picture = read_image(tmp_path / "a.png", spacing=(0.7, 1.1))
    write_nifti(tmp_path / "a.nii", picture.data, picture.grid)
    flat = sitk.ReadImage(str(tmp_path / "a.png"))
    flat.SetSpacing((1.1, 0.7))  # x runs along the columns
    placed = sitk.ReadImage(str(tmp_path / "a.nii"))
    for row, column in ((0, 0), (4, 2), (1, 6)):
        there = placed.TransformIndexToPhysicalPoint((row, column, 0))
        here = flat.TransformIndexToPhysicalPoint((column, row))
        np.testing.assert_allclose(there, (*here, 0), atol=1e-4)
        assert placed.GetPixel((row, column, 0)) == flat.GetPixel((column, row))


def test_2d_channels(tmp_path):
    grid = oblique_grid((5, 7), (0.7, 1.1))
    data = np.random.default_rng(0).normal(size=(3, 5, 7)).astype(np.float32)
    write_nifti(tmp_path / "a.nii.gz", data, grid)
    back = read_image(tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(back.data[..., 0], data)
    np.testing.assert_allclose(back.grid.spacing, (0.7, 1.1, 1.0), rtol=1e-6)


def test_refuses_wrong_shapes_and_names(tmp_path):
    grid = oblique_grid()
    with pytest.raises(GridError, match=r"got \(5, 7, 12\)"):
        write_nifti(tmp_path / "a.nii", np.zeros((5, 7, 12)), grid)
    with pytest.raises(OutputError, match=r"ends in \.nii or \.nii\.gz"):
        write_nifti(tmp_path / "a.mha", np.zeros(grid.shape), grid)
    with pytest.raises(OutputError, match="32767"):
        write_nifti(tmp_path / "a.nii", np.zeros((1, 1, 40000)), oblique_grid((1, 1, 40000)))


def test_writing_twice_gives_the_same_bytes(tmp_path):
    volume = phantoms.volume()
    write_nifti(tmp_path / "a.nii.gz", volume.data, volume.grid)
    write_nifti(tmp_path / "b.nii.gz", volume.data, volume.grid)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


def test_labels_there_and_back(tmp_path):
    labels = phantoms.labels()
    write_nifti(tmp_path / "seg.nii.gz", labels.layers, labels.grid)
    back = read_labels(tmp_path / "seg.nii.gz", labels.names)
    np.testing.assert_array_equal(back.layers, labels.layers)
    assert back.names == labels.names
    assert back.grid.matches(labels.grid)


def test_read_nifti_keeps_the_stored_type(tmp_path):
    path = save(tmp_path / "x.nii.gz", np.ones((5, 7, 11), np.int16))
    data, _ = nifti.read_nifti(path)
    assert data.dtype == np.int16
