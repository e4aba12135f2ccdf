"""DICOM written and read back: every frame at its place, and nothing that identifies."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.spatial.transform import Rotation
from typer.testing import CliRunner

from voxplain.attribution import SmoothGrad, explain
from voxplain.cli import app
from voxplain.errors import GridError, ImageError, OutputError
from voxplain.export import export_dicom
from voxplain.inference.compute import Compute
from voxplain.models import wrap
from voxplain.records import Explanation
from voxplain.space import LabelMap, Volume, read_image, resample, write_nifti
from voxplain.testing.dicom import write_frames, write_series
from voxplain.testing.models import SmallNet

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")
SHAPE = (14, 11, 6)
TURN = Rotation.from_euler("xyz", [0.2, -0.15, 0.3]).as_matrix()


def result(image: Volume, activation: str = "softmax") -> Explanation:
    model = wrap(
        SmallNet(3, image.n_channels, 3, seed=3), classes=("background", "liver", "vein: left\\1"),
        channels=image.channels, window=(6, 6, 6), activation=activation,
    )  # fmt: skip
    return explain(
        model, image, ["class:liver", "class:vein: left\\1"], SmoothGrad(n=1),
        compute=Compute("cpu"),
    )  # fmt: skip


@pytest.fixture
def series(tmp_path: Path) -> Path:
    rng = np.random.default_rng(2)
    values = rng.integers(-500, 900, SHAPE).astype(np.int16)
    write_series(
        tmp_path / "scan", values, TURN, (0.7, 1.1, 2.3), (-30.0, 12.5, 200.0),
        order=[3, 0, 5, 1, 4, 2],
    )  # fmt: skip
    return tmp_path / "scan"


def edit(series: Path, **values: Any) -> None:
    """Change tags of every file."""
    for file in series.iterdir():
        header = pydicom.dcmread(file)
        for name, value in values.items():
            setattr(header, name, value)
        header.save_as(file)


def frames(file: Path) -> dict[tuple[float, ...], list[Any]]:
    """Groups of the frames of a written file, by their position."""
    found: dict[tuple[float, ...], list[Any]] = {}
    header = pydicom.dcmread(file)
    for index, frame in enumerate(header.PerFrameFunctionalGroupsSequence):
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        found.setdefault(tuple(round(float(x), 3) for x in position), []).append((index, frame))
    return found


def place(image: Volume, z: int) -> tuple[float, ...]:
    ras = image.grid.to_world((0, 0, z))
    return tuple(round(float(x), 3) for x in ras * (-1, -1, 1))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_segments_lie_on_their_slices(activation: str, series: Path, tmp_path: Path) -> None:
    image = read_image(series)
    explanation = result(image, activation)
    files, generated = export_dicom(explanation, series, tmp_path / "out", only=["seg"])
    assert generated == ()
    written = hd.seg.segread(files[0])
    assert written.SegmentSequence[0].SegmentAlgorithmType == "AUTOMATIC"
    labels = explanation.prediction
    assert labels is not None
    names = {written.get_segment_description(n).segment_label: n for n in written.segment_numbers}
    for name in labels.region_names[1:]:
        mask = labels.mask(name)
        if not mask.any():
            continue
        number = names[name.replace("\\", "/")]
        for z in range(SHAPE[2]):
            found = [
                written.pixel_array[index]
                for index, frame in frames(files[0]).get(place(image, z), [])
                if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
            ]
            wanted = mask[:, :, z].T
            np.testing.assert_array_equal(found[0] if found else 0 * wanted, wanted)
    sources = {pydicom.dcmread(f).SOPInstanceUID for f in series.iterdir()}
    referenced = written.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert {item.ReferencedSOPInstanceUID for item in referenced} <= sources


def test_maps_hold_the_values_where_they_are(series: Path, tmp_path: Path) -> None:
    image = read_image(series)
    explanation = result(image)
    files, _ = export_dicom(explanation, series, tmp_path / "out", only=["map"])
    assert [file.name for file in files] == ["map_liver.dcm", "map_vein_left_1.dcm"]
    for file, name in zip(files, explanation.attributions, strict=True):
        written = hd.pm.pmread(file) if hasattr(hd.pm, "pmread") else pydicom.dcmread(file)
        values = explanation[name].values[0]
        assert written.pixel_array.dtype == np.float32
        for z in range(SHAPE[2]):
            ((index, frame),) = frames(file)[place(image, z)]
            np.testing.assert_array_equal(written.pixel_array[index], values[:, :, z].T)
        mapping = frame.get("RealWorldValueMappingSequence") or (
            written.SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
        )
        assert "per intensity" in mapping[0].LUTExplanation
        source = pydicom.dcmread(next(iter(series.iterdir())))
        assert written.FrameOfReferenceUID == source.FrameOfReferenceUID
        assert written.StudyInstanceUID == source.StudyInstanceUID
        assert written.SeriesInstanceUID != source.SeriesInstanceUID


def test_key_images_show_the_planes(series: Path, tmp_path: Path) -> None:
    explanation = result(read_image(series))
    files, _ = export_dicom(explanation, series, tmp_path / "out", only=["key"])
    assert len(files) == 2
    one = pydicom.dcmread(files[0])
    assert one.pixel_array.shape[2] == 3
    assert one.pixel_array.std() > 20
    assert one.BurnedInAnnotation == "NO"
    assert len(one.SourceImageSequence) == SHAPE[2]
    assert pydicom.dcmread(files[1]).SeriesInstanceUID == one.SeriesInstanceUID


def test_key_images_name_target_and_purpose(series: Path, tmp_path: Path) -> None:
    explanation = result(read_image(series))
    files, _ = export_dicom(explanation, series, tmp_path / "out", only=["key"])
    plain = export_dicom(explanation, series, tmp_path / "again", only=["key"])[0]
    one, other = (pydicom.dcmread(file) for file in files)
    # the heading is the same line of words but for the target's name
    top = slice(0, 30)
    assert (one.pixel_array[top] < 100).any()
    assert (one.pixel_array[top] != other.pixel_array[top, : one.Columns]).any()
    np.testing.assert_array_equal(one.pixel_array, pydicom.dcmread(plain[0]).pixel_array)
    assert one.SeriesDescription.startswith("Research, not for diagnosis")


def test_each_channel_is_a_map_that_references_its_own_series(series: Path, tmp_path: Path) -> None:
    second = tmp_path / "second"
    shutil.copytree(series, second)
    uid = pydicom.uid.generate_uid()
    edit(second, SeriesInstanceUID=uid)
    for file in second.iterdir():
        header = pydicom.dcmread(file)
        header.SOPInstanceUID = pydicom.uid.generate_uid()
        header.save_as(file)
    image = read_image([series, second], channels=("t1", "t2"))
    files, _ = export_dicom(result(image), [series, second], tmp_path / "out")
    names = [file.name for file in files]
    assert names[2:4] == ["map_liver_t1.dcm", "map_liver_t2.dcm"]
    referenced = [
        pydicom.dcmread(file).ReferencedSeriesSequence[0].SeriesInstanceUID for file in files[2:4]
    ]
    assert referenced[1] == uid != referenced[0]
    for wrong in (series, [second, series, series]):
        with pytest.raises(ImageError, match=r"2 channels \(t1, t2\) and . series were given"):
            export_dicom(result(image), wrong, tmp_path / "wrong")
    edit(second, StudyInstanceUID=pydicom.uid.generate_uid())
    with pytest.raises(OutputError, match="series are of 2 studies"):
        export_dicom(result(image), [series, second], tmp_path / "wrong")


@pytest.mark.parametrize("is_overlapping", [False, True])
def test_labels_of_any_number_and_overlap(
    is_overlapping: bool, series: Path, tmp_path: Path
) -> None:
    image = read_image(series)
    one, other = np.zeros((2, *SHAPE), np.uint8)
    one[2:9, 3:8, 1:4], other[5:12, 2:6, 2:5] = 7, 200
    layers = np.stack([one, other]) if is_overlapping else np.maximum(one, other)[None]
    names = {7: "lung_lower_lobe_left", 9: "absent", 200: "lung_lower_lobe_right"}
    labels = LabelMap(layers, image.grid, names)
    explanation = replace(result(image), prediction=labels)
    (file,), _ = export_dicom(explanation, series, tmp_path / "out", only=["seg"])
    written = hd.seg.segread(file)
    assert [s.SegmentLabel for s in written.SegmentSequence] == [names[7], names[200]]
    codes = {s.segmented_property_type.value for s in map(
        written.get_segment_description, (1, 2))}  # fmt: skip
    assert len(codes) == 2  # the names begin alike
    for number, label in ((1, 7), (2, 200)):
        slices = {
            position: written.pixel_array[index]
            for position, found in frames(file).items()
            for index, frame in found
            if frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber == number
        }
        for z in range(SHAPE[2]):
            wanted = labels.mask(label)[:, :, z].T
            np.testing.assert_array_equal(slices.get(place(image, z), 0 * wanted), wanted)


def test_the_unit_is_coded(series: Path, tmp_path: Path) -> None:
    explanation = result(read_image(series))
    (file, *_), _ = export_dicom(explanation, series, tmp_path / "out", only=["map"])
    mapping = pydicom.dcmread(file).SharedFunctionalGroupsSequence[0].RealWorldValueMappingSequence
    (unit,) = mapping[0].MeasurementUnitsCodeSequence
    assert (unit.LongCodeValue, unit.CodingSchemeDesignator) == ("{logit per intensity}", "UCUM")


# -- whose it is ------------------------------------------------------------------------------
def test_missing_identifiers_are_made_up_and_told(series: Path, tmp_path: Path) -> None:
    edit(series, StudyInstanceUID="", SeriesInstanceUID="", SOPInstanceUID="", SOPClassUID="",
         FrameOfReferenceUID="")  # fmt: skip
    explanation = result(read_image(series))
    files, generated = export_dicom(explanation, series, tmp_path / "a", only=["map"])
    # slices have theirs in the head of the file
    assert generated == ("FrameOfReferenceUID", "SeriesInstanceUID", "StudyInstanceUID")
    again, _ = export_dicom(explanation, series, tmp_path / "b", only=["map"])
    studies = {pydicom.dcmread(file).StudyInstanceUID for file in (*files, *again)}
    assert len(studies) == 1
    # another patient at the same place on the same kind of scanner
    edit(series, RescaleIntercept=-1000)
    others, _ = export_dicom(result(read_image(series)), series, tmp_path / "c", only=["map"])
    assert studies.isdisjoint({pydicom.dcmread(file).StudyInstanceUID for file in others})


def test_what_is_anonymous_stays_so(series: Path, tmp_path: Path) -> None:
    edit(series, PatientIdentityRemoved="YES", DeidentificationMethod="by hand")
    files, _ = export_dicom(result(read_image(series)), series, tmp_path / "out")
    for file in files:
        header = pydicom.dcmread(file)
        assert not str(header.PatientName)
        assert not header.PatientID
        assert not header.get("InstitutionName")
        assert header.PatientIdentityRemoved == "YES"
        assert header.DeidentificationMethod == "by hand"
        assert header.BurnedInAnnotation == "NO"


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (None, "Mustermann"),
        ("ISO_IR 100", "Müller-Röhm^Jürgen"),
        (["", "ISO 2022 IR 87"], "Yamadasan^Tarou=山田^太郎"),
    ],
)
def test_no_identifier_is_told_and_all_are_copied(
    charset: Any, name: str, series: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scanner = "scanner " + name.rpartition("^")[2]
    if charset is not None:
        edit(series, SpecificCharacterSet=charset)
    former = pydicom.Dataset()
    former.PatientID, former.TypeOfPatientID = f"former {name}", "TEXT"
    edit(series, Manufacturer=scanner, OtherPatientIDsSequence=[former])
    with pydicom.config.disable_value_validation():
        edit(
            series, PatientName=name, PatientID="PID-77-4711", PatientSex="X", PatientBirthDate="19"
        )
    explanation = result(read_image(series))
    explanation.save(tmp_path / "saved")
    caplog.set_level("INFO")
    done = CliRunner().invoke(
        app,
        ["export", str(tmp_path / "saved"), "--source", str(series), "--out", str(tmp_path / "x")],
    )
    assert done.exit_code == 0, done.output
    told = done.output + caplog.text
    saved = b"".join(file.read_bytes() for file in (tmp_path / "saved").rglob("*"))
    for identifier in (name, name.partition("^")[0], "PID-77-4711"):
        assert identifier not in told
        assert identifier.encode() not in saved
    assert len(list((tmp_path / "x").iterdir())) == 5
    for file in (tmp_path / "x").iterdir():
        assert file.stem == "segmentation" or file.stem.startswith(("map_", "key_"))
        with pydicom.config.disable_value_validation():
            header = pydicom.dcmread(file)
            # copied as they are, so that an archive files it
            found = (header.PatientName, header.PatientID, header.PatientSex)
            assert (*found, header.PatientBirthDate) == (name, "PID-77-4711", "X", "19")
            assert header.OtherPatientIDsSequence[0].PatientID == f"former {name}"
            assert header.ContributingEquipmentSequence[0].Manufacturer == scanner


def test_text_in_the_source_is_owned_up_to(series: Path, tmp_path: Path) -> None:
    edit(series, BurnedInAnnotation="YES")
    files, _ = export_dicom(result(read_image(series)), series, tmp_path / "out", only=["key"])
    assert {pydicom.dcmread(file).BurnedInAnnotation for file in files} == {"YES"}


# -- other sources ----------------------------------------------------------------------------
def test_one_file_with_many_frames_in_any_order(series: Path, tmp_path: Path) -> None:
    many = write_frames(series, tmp_path / "many", order=[2, 0, 5, 3, 1, 4])
    image = read_image(many)
    np.testing.assert_array_equal(image.data, read_image(series).data)
    explanation = result(image)
    files, _ = export_dicom(explanation, many, tmp_path / "out")
    values = next(iter(explanation.attributions.values())).values[0]
    written = pydicom.dcmread(files[2])
    for z in range(SHAPE[2]):
        ((index, _),) = frames(files[2])[place(image, z)]
        np.testing.assert_array_equal(written.pixel_array[index], values[:, :, z].T)


def test_a_radiograph(series: Path, tmp_path: Path) -> None:
    file, *rest = sorted(series.iterdir())
    for other in rest:
        other.unlink()
    header = pydicom.dcmread(file)
    header.Modality, header.SOPClassUID = "DX", "1.2.840.10008.5.1.4.1.1.1.1"
    for name in ("ImagePositionPatient", "ImageOrientationPatient", "FrameOfReferenceUID"):
        delattr(header, name)
    header.save_as(file)
    image = read_image(series)
    assert image.grid.rank == 2
    model = wrap(
        SmallNet(2, 1, 2, seed=3), classes=("background", "lung"), channels=image.channels, rank=2
    )
    explanation = explain(model, image, "class:lung", SmoothGrad(n=1), compute=Compute("cpu"))
    files, generated = export_dicom(explanation, series, tmp_path / "out")
    assert generated == ()
    assert [file.name for file in files] == ["key_lung.dcm", "segmentation.dcm"]
    np.testing.assert_array_equal(
        pydicom.dcmread(files[1]).pixel_array, explanation.prediction.mask("lung")
    )
    with pytest.raises(OutputError, match="no place in the patient, which a Parametric Map needs"):
        export_dicom(explanation, series, tmp_path / "map", only=["map"])


# -- faults -----------------------------------------------------------------------------------
def test_a_result_of_another_image_is_refused(series: Path, tmp_path: Path) -> None:
    image = read_image(series)
    shifted = Volume(image.data, image.grid.crop((1, 0, 0), SHAPE), image.channels)
    with pytest.raises(GridError, match="explain the series itself"):
        export_dicom(result(shifted), series, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_patient_at_the_same_place_is_refused(series: Path, tmp_path: Path) -> None:
    image = read_image(series)
    explanation = result(image)
    explanation.save(tmp_path / "saved")
    edit(series, RescaleIntercept=-1000)
    for one in (explanation, Explanation.load(tmp_path / "saved")):
        for part in ("seg", "map", "key"):
            with pytest.raises(ImageError, match="not the image that was explained"):
                export_dicom(one, series, tmp_path / "out", only=[part])
    assert not (tmp_path / "out").exists()


def test_a_folder_with_files_is_refused(series: Path) -> None:
    explanation = result(read_image(series))
    before = sorted(series.iterdir())
    with pytest.raises(OutputError, match="holds files, which would be sent along"):
        export_dicom(explanation, series, series)
    assert sorted(series.iterdir()) == before


def test_other_axes_of_the_same_voxels_are_brought_back(series: Path, tmp_path: Path) -> None:
    image = read_image(series)
    turned = resample(image, like=image.grid.reorient("SRA"))
    here, there = result(image), result(turned)
    a, _ = export_dicom(there, series, tmp_path / "a", only=["map"])
    values = there[next(iter(there.attributions))]
    back = resample(Volume(values.values, values.grid), like=image.grid).data[0]
    written = pydicom.dcmread(a[0]).pixel_array
    for z in range(SHAPE[2]):
        ((index, _),) = frames(a[0])[place(image, z)]
        np.testing.assert_allclose(written[index], back[:, :, z].T, rtol=0, atol=1e-7)
    assert here.kind == there.kind


def test_what_is_not_there_is_told(series: Path, tmp_path: Path) -> None:
    explanation = result(read_image(series))
    explanation.save(tmp_path / "saved", maps=False)
    loaded = Explanation.load(tmp_path / "saved")
    with pytest.raises(OutputError, match=r"holds no map .explain with --save-maps"):
        export_dicom(loaded, series, tmp_path / "out", only=["map"])
    with pytest.raises(OutputError, match="nothing to write is called 'maps'"):
        export_dicom(loaded, series, tmp_path / "out", only=["maps"])
    assert not (tmp_path / "out").exists()


def test_a_result_of_a_nifti_file_made_from_the_series(series: Path, tmp_path: Path) -> None:
    image = read_image(series)
    turned = resample(image, like=image.grid.reorient("RAS"))
    write_nifti(tmp_path / "ct.nii.gz", turned.data, turned.grid)
    result(read_image(tmp_path / "ct.nii.gz")).save(tmp_path / "saved")
    call = ["export", str(tmp_path / "saved"), "--source", str(series), "--out"]
    done = CliRunner().invoke(app, [*call, str(tmp_path / "a")])
    assert done.exit_code == 2
    done = CliRunner().invoke(
        app, [*call, str(tmp_path / "b"), "--image", str(tmp_path / "ct.nii.gz")]
    )
    assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "b").iterdir())) == 5
