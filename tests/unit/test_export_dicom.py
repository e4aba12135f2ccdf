"""DICOM written and read back: every frame at its place, and nothing that identifies."""

from __future__ import annotations

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
from voxplain.space import Volume, read_image
from voxplain.testing.dicom import write_series
from voxplain.testing.models import SmallNet

pydicom = pytest.importorskip("pydicom")
hd = pytest.importorskip("highdicom")
SHAPE = (14, 11, 6)
TURN = Rotation.from_euler("xyz", [0.2, -0.15, 0.3]).as_matrix()
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:highdicom")


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


def test_channels_are_maps_of_their_own(series: Path, tmp_path: Path) -> None:
    image = read_image([series, series], channels=("t1", "t2"))
    files, _ = export_dicom(result(image), series, tmp_path / "out", only=["map"])
    assert sorted(file.name for file in files)[:2] == ["map_liver_t1.dcm", "map_liver_t2.dcm"]


def test_missing_identifiers_are_made_up_and_told(series: Path, tmp_path: Path) -> None:
    for file in series.iterdir():
        header = pydicom.dcmread(file)
        header.StudyInstanceUID = header.SeriesInstanceUID = header.SOPInstanceUID = ""
        header.SOPClassUID = ""
        header.save_as(file)
    explanation = result(read_image(series))
    files, generated = export_dicom(explanation, series, tmp_path / "a", only=["map"])
    assert generated == ("SeriesInstanceUID", "StudyInstanceUID")  # slices have theirs in the file
    again, _ = export_dicom(explanation, series, tmp_path / "b", only=["map"])
    studies = {pydicom.dcmread(file).StudyInstanceUID for file in (*files, *again)}
    assert len(studies) == 1


def test_nothing_identifies_the_patient(series: Path, tmp_path: Path) -> None:
    files, _ = export_dicom(result(read_image(series)), series, tmp_path / "out")
    for file in files:
        header = pydicom.dcmread(file)
        assert not str(header.PatientName)
        assert not header.PatientID
        assert not header.get("InstitutionName")
    for file in series.iterdir():
        header = pydicom.dcmread(file)
        header.PatientName, header.PatientID, header.PatientIdentityRemoved = (
            "Doe^Jane",
            "PID-77-4711",
            "NO",
        )
        header.save_as(file)
    explanation = result(read_image(series))
    explanation.save(tmp_path / "saved")
    done = CliRunner().invoke(
        app,
        ["export", str(tmp_path / "saved"), "--source", str(series), "--out", str(tmp_path / "x")],
    )
    assert done.exit_code == 0, done.output
    assert "Doe" not in done.output
    assert "PID-77-4711" not in done.output
    for file in (tmp_path / "x").iterdir():
        assert "Doe" not in file.name
        assert (
            pydicom.dcmread(file).PatientID == "PID-77-4711"
        )  # copied, so that an archive files it
    for file in (tmp_path / "saved").rglob("*"):
        assert b"PID-77-4711" not in file.read_bytes()


# -- faults -----------------------------------------------------------------------------------
def test_a_result_of_another_image_is_refused(series: Path, tmp_path: Path) -> None:
    image = read_image(series)
    shifted = Volume(image.data, image.grid.crop((1, 0, 0), SHAPE), image.channels)
    with pytest.raises(GridError, match="explain the series itself"):
        export_dicom(result(shifted), series, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_axes_of_the_same_voxels_are_brought_back(series: Path, tmp_path: Path) -> None:
    from voxplain.space.resample import resample

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
    with pytest.raises(ImageError, match="key images need the image that was explained"):
        export_dicom(loaded, series, tmp_path / "out", only=["key"])
    assert not (tmp_path / "out").exists()
