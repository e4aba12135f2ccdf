"""DICOM series: order, rescaling, place in the patient, and every fault by its name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from voxplain.errors import ImageError
from voxplain.space import read_image
from voxplain.space.dicom_files import find_series
from voxplain.testing.dicom import write_frames, write_series

pydicom = pytest.importorskip("pydicom")
SHAPE = (7, 5, 4)  # columns, rows, slices
SPACING = (0.7, 1.1, 2.3)
TURN = Rotation.from_euler("xyz", [0.2, -0.15, 0.3]).as_matrix()
ORIGIN = np.array([-30.0, 12.5, 200.0])


def values() -> np.ndarray:
    return np.random.default_rng(1).integers(-900, 1200, SHAPE).astype(np.int16)


def affine(turn: np.ndarray = TURN) -> np.ndarray:
    """LPS of the slices to RAS."""
    lps = np.eye(4)
    lps[:3, :3], lps[:3, 3] = turn * SPACING, ORIGIN
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ lps


def edit(file: Path, change: Callable[[Any], None]) -> None:
    header = pydicom.dcmread(file)
    change(header)
    header.save_as(file)


@pytest.fixture
def series(tmp_path: Path) -> Path:
    folder = tmp_path / "scan"
    write_series(folder, values(), TURN, SPACING, ORIGIN)
    return folder


def test_values_and_place(series: Path) -> None:
    image = read_image(series)
    np.testing.assert_array_equal(image.data[0], values())
    np.testing.assert_allclose(image.grid.affine, affine(), atol=1e-5)
    assert (image.name, image.data.dtype) == ("scan", np.float32)


@given(order=st.permutations(range(SHAPE[2])), angles=st.tuples(*[st.floats(-3, 3)] * 3))
def test_file_names_say_nothing_of_the_order(
    order: list[int], angles: tuple[float, ...], tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("scan")
    turn = Rotation.from_euler("xyz", angles).as_matrix()
    write_series(folder, values(), turn, SPACING, ORIGIN, order=order)
    image = read_image(folder)
    np.testing.assert_array_equal(image.data[0], values())
    np.testing.assert_allclose(image.grid.affine, affine(turn), atol=1e-4)


def test_each_slice_has_its_own_rescaling(series: Path) -> None:
    def change(header: Any) -> None:
        header.RescaleSlope, header.RescaleIntercept = 2, -10

    first = sorted(series.iterdir())[0]
    stored = pydicom.dcmread(first).pixel_array.T
    edit(first, change)
    np.testing.assert_array_equal(read_image(series).data[0, :, :, 0], 2.0 * stored - 10)


def test_a_single_slice_takes_its_thickness(series: Path) -> None:
    for file in sorted(series.iterdir())[1:]:
        file.unlink()
    assert read_image(series).grid.shape == (*SHAPE[:2], 1)
    np.testing.assert_allclose(read_image(series).grid.spacing, SPACING, atol=1e-5)
    (file,) = series.iterdir()
    assert read_image(file).grid == read_image(series).grid
    edit(file, lambda header: delattr(header, "SliceThickness"))
    with pytest.raises(ImageError, match="one slice that does not state its thickness"):
        read_image(series)


@pytest.mark.parametrize("name", ["CT_small.dcm", "MR_small.dcm"])
def test_files_of_other_makers(name: str) -> None:
    from pydicom.data import get_testdata_file

    path = Path(str(get_testdata_file(name)))
    header = pydicom.dcmread(path)
    image = read_image(path)
    stored = header.pixel_array.T * header.get("RescaleSlope", 1)
    np.testing.assert_array_equal(
        image.data[0, :, :, 0], stored + header.get("RescaleIntercept", 0)
    )
    lps = np.array([*header.ImagePositionPatient])
    np.testing.assert_allclose(image.grid.to_world((0, 0, 0)), lps * (-1, -1, 1))


# -- several series ---------------------------------------------------------------------------
def test_several_series_are_listed_and_one_is_chosen(tmp_path: Path) -> None:
    write_series(tmp_path / "a", values(), TURN, SPACING, ORIGIN, number=7)
    write_series(tmp_path / "b", values() + 1, np.eye(3), SPACING, ORIGIN, number=3)
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ImageError, match="holds 2 series; choose one with") as caught:
        read_image(tmp_path)
    assert "#1: CT, series 3, 4 files" in str(caught.value)
    assert "#2: CT, series 7, 4 files" in str(caught.value)
    np.testing.assert_array_equal(read_image(f"{tmp_path}#2").data[0], values())
    uid = find_series(tmp_path)[0].uid
    np.testing.assert_array_equal(read_image(f"{tmp_path}#{uid}").data[0], values() + 1)
    with pytest.raises(ImageError, match="no series '3' among 2 series"):
        read_image(f"{tmp_path}#3")


def test_two_series_are_two_channels(tmp_path: Path) -> None:
    write_series(tmp_path / "a", values(), TURN, SPACING, ORIGIN)
    write_series(tmp_path / "b", values() + 1, TURN, SPACING, ORIGIN)
    image = read_image([tmp_path / "a", tmp_path / "b"], channels=("t1", "t2"))
    np.testing.assert_array_equal(image.data, np.stack([values(), values() + 1]))


def test_files_without_identifiers_are_one_series(series: Path) -> None:
    for file in series.iterdir():
        edit(file, lambda header: setattr(header, "SeriesInstanceUID", ""))
    np.testing.assert_array_equal(read_image(series).data[0], values())


# -- faults -----------------------------------------------------------------------------------
def remove(folder: Path) -> None:
    sorted(folder.iterdir())[1].unlink()


def double(folder: Path) -> None:
    (folder / "again").write_bytes(sorted(folder.iterdir())[1].read_bytes())


def turn(folder: Path) -> None:
    edit(
        sorted(folder.iterdir())[1],
        lambda header: setattr(header, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]),
    )


def tilt(folder: Path) -> None:
    for place, file in enumerate(sorted(folder.iterdir())):
        shift = (place * 0.5 * TURN[:, 1]).tolist()

        def change(header: Any, shift: list[float] = shift) -> None:
            old = header.ImagePositionPatient
            header.ImagePositionPatient = [f"{a + b:.6f}" for a, b in zip(old, shift, strict=True)]

        edit(file, change)


def move(folder: Path) -> None:
    def change(header: Any) -> None:
        old = np.array(header.ImagePositionPatient, float) + 0.8 * TURN[:, 2]
        header.ImagePositionPatient = [f"{a:.6f}" for a in old]

    edit(sorted(folder.iterdir())[-1], change)


def shift(folder: Path) -> None:
    def change(header: Any) -> None:
        old = np.array(header.ImagePositionPatient, float) + 0.5 * TURN[:, 0]
        header.ImagePositionPatient = [f"{a:.6f}" for a in old]

    edit(sorted(folder.iterdir())[1], change)


def pixels(folder: Path) -> None:
    edit(sorted(folder.iterdir())[0], lambda h: setattr(h, "PixelSpacing", [1, 1]))


def nowhere(folder: Path) -> None:
    edit(sorted(folder.iterdir())[0], lambda h: delattr(h, "ImagePositionPatient"))


def colour(folder: Path) -> None:
    edit(sorted(folder.iterdir())[0], lambda h: setattr(h, "SamplesPerPixel", 3))


def palette(folder: Path) -> None:
    edit(
        sorted(folder.iterdir())[0],
        lambda h: setattr(h, "PhotometricInterpretation", "PALETTE COLOR"),
    )


def unruled(folder: Path) -> None:
    def change(header: Any) -> None:
        del header.RescaleSlope, header.RescaleIntercept

    edit(sorted(folder.iterdir())[0], change)


def half_ruled(folder: Path) -> None:
    for file in folder.iterdir():
        edit(file, lambda h: delattr(h, "RescaleIntercept"))


def backwards(folder: Path) -> None:
    for file in folder.iterdir():
        edit(file, lambda h: setattr(h, "PixelSpacing", [-1.1, 0.7]))


def unnamed(folder: Path) -> None:
    file = sorted(folder.iterdir())[0]
    header = pydicom.dcmread(file)
    header.PixelData = pydicom.encaps.encapsulate([header.PixelData])
    plain = pydicom.Dataset(header)
    plain["PixelData"].is_undefined_length = True
    plain.save_as(file, implicit_vr=False, little_endian=True)


def cut(folder: Path) -> None:
    file = sorted(folder.iterdir())[0]
    file.write_bytes(file.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (remove, r"1 slice missing between .* mm"),
        (double, "1 duplicate slices, at"),
        (turn, "mixed orientation: 1 of 4 slices"),
        (tilt, r"gantry tilt of 12\.3 degrees"),
        (move, r"uneven spacing: 3\.10 mm after .* mm, usually 2\.30"),
        (shift, r"1 of 4 slices shifted within their plane, up to 0\.50 mm"),
        (pixels, r"pixels of different size: \(0\.7, 1\.1\), \(1\.0, 1\.0\) mm"),
        (nowhere, "no ImagePositionPatient; nothing says where"),
        (colour, "1 files are in colour"),
        (palette, "1 files are in colour"),
        (unruled, "3 of 4 files state how their values are rescaled"),
        (half_ruled, "expected RescaleSlope and RescaleIntercept, both or none"),
        (backwards, r"PixelSpacing is not two lengths: \(-1\.1, 0\.7\) mm"),
        (unnamed, "says no transfer syntax"),
        (cut, "pixels cannot be read"),
    ],
)
def test_what_is_not_one_volume_is_refused(
    fault: Callable[[Path], None], sentence: str, series: Path
) -> None:
    fault(series)
    with pytest.raises(ImageError, match=sentence):
        read_image(series)


@pytest.mark.parametrize(
    ("name", "kind", "value"),
    [
        ("SeriesNumber", "IS", b"7A"),
        ("ImagePositionPatient", "DS", b"a\\b\\c "),
        ("ImagePositionPatient", "DS", b"nan\\1\\2 "),
        ("ImageOrientationPatient", "DS", b"nan\\0\\0\\0\\1\\0 "),
        ("PixelSpacing", "DS", b"nan\\1 "),
        ("SliceThickness", "DS", b"z "),
        ("RescaleSlope", "DS", b"x "),
        ("RescaleSlope", "DS", b""),
        ("Rows", "US", b""),
        ("NumberOfFrames", "IS", b"q "),
    ],
)
def test_a_broken_value_is_refused_with_the_file(
    name: str, kind: str, value: bytes, series: Path
) -> None:
    from pydicom.datadict import tag_for_keyword
    from pydicom.dataelem import RawDataElement

    file = sorted(series.iterdir())[0]
    tag = pydicom.tag.Tag(tag_for_keyword(name))
    with pydicom.config.disable_value_validation():
        header = pydicom.dcmread(file)
        header._dict[tag] = RawDataElement(tag, kind, len(value), value, 0, False, True)
        header.save_as(file)
    with pytest.raises(ImageError, match=r"0000\.dcm: "):
        read_image(series)


def test_all_faults_are_told_at_once(series: Path) -> None:
    double(series)
    tilt(series)
    with pytest.raises(ImageError, match="3 faults"):
        read_image(series)


def test_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(ImageError, match="a folder without DICOM images"):
        read_image(tmp_path)
    (tmp_path / "bad.dcm").write_bytes(b"no dicom at all")
    with pytest.raises(ImageError, match=r"without DICOM images|cannot be read as DICOM"):
        read_image(tmp_path)


# -- radiographs and many frames --------------------------------------------------------------
@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
def test_a_radiograph_is_a_picture(kind: str, tmp_path: Path) -> None:
    write_series(tmp_path, values()[..., :1], np.eye(3), SPACING, ORIGIN)
    (file,) = tmp_path.iterdir()
    stored = values()[..., 0].T.astype(float)

    def change(header: Any) -> None:
        header.Modality, header.PhotometricInterpretation = "DX", kind
        del header.ImagePositionPatient

    edit(file, change)
    image = read_image(file)
    wanted = stored if kind == "MONOCHROME2" else stored.max() + stored.min() - stored
    np.testing.assert_array_equal(image.data[0], wanted)
    np.testing.assert_allclose(image.grid.spacing, (1.1, 0.7))


def test_one_file_with_many_frames(series: Path, tmp_path: Path) -> None:
    image = read_image(write_frames(series, tmp_path / "many", order=[2, 0, 3, 1]))
    np.testing.assert_array_equal(image.data[0], values())
    np.testing.assert_allclose(image.grid.affine, affine(), atol=1e-5)


def test_frames_and_their_places_are_as_many(series: Path, tmp_path: Path) -> None:
    many = write_frames(series, tmp_path / "many")
    edit(many, lambda h: setattr(h, "NumberOfFrames", 3))
    with pytest.raises(ImageError, match="holds 3 frames and says of 4 where they lie"):
        read_image(many)
    edit(many, lambda h: delattr(h, "SharedFunctionalGroupsSequence"))
    edit(many, lambda h: setattr(h, "NumberOfFrames", 4))
    with pytest.raises(ImageError, match=r"frames\.dcm: a value is missing"):
        read_image(many)


# -- files and names --------------------------------------------------------------------------
def test_files_without_prefix_and_suffix_are_found(series: Path) -> None:
    before = read_image(series)
    for file in series.iterdir():
        header = pydicom.dcmread(file)
        plain = pydicom.Dataset(header)
        plain.save_as(file.with_suffix(""), implicit_vr=True, little_endian=True)
        file.unlink()
    (series / "DICOMDIR").write_bytes(b"\x08\x00 of another kind")
    assert not any(file.read_bytes()[128:132] == b"DICM" for file in series.iterdir())
    np.testing.assert_array_equal(read_image(series).data, before.data)


@pytest.mark.parametrize("name", ["1.3.12.2.1107.5", "study 7"])
def test_a_case_is_named_after_its_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    write_series(folder, values(), TURN, SPACING, ORIGIN, patient="Doe")
    assert read_image(folder).name == name
    assert read_image(f"{folder}#1").name == name
    monkeypatch.chdir(folder)
    assert read_image(".").name == name


def test_compressed_pixels_are_decoded(tmp_path: Path) -> None:
    pytest.importorskip("openjpeg")
    large = np.random.default_rng(1).integers(-900, 1200, (40, 33, 2)).astype(np.int16)
    for file in write_series(tmp_path, large, TURN, SPACING, ORIGIN):
        edit(file, lambda header: header.compress("1.2.840.10008.1.2.4.90"))
        assert pydicom.dcmread(file).file_meta.TransferSyntaxUID.is_encapsulated
    np.testing.assert_array_equal(read_image(tmp_path).data[0], large)


def test_a_table_of_values_is_applied(series: Path) -> None:
    first = sorted(series.iterdir())[0]
    stored = pydicom.dcmread(first).pixel_array

    def change(header: Any) -> None:
        table = pydicom.Dataset()
        table.LUTDescriptor = [int(stored.max()) + 1, 0, 16]
        table.ModalityLUTType = "HU"
        table.LUTData = (np.arange(stored.max() + 1) // 2).astype("<u2").tobytes()
        table["LUTData"].VR = "OW"
        del header.RescaleSlope, header.RescaleIntercept
        header.ModalityLUTSequence = [table]

    edit(first, change)
    np.testing.assert_array_equal(read_image(series).data[0, :, :, 0], stored.T // 2)
