"""Attributions, explanations and provenance: saved and read back equal."""

from __future__ import annotations

import gzip
import hashlib
import json
import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from voxplain.errors import GridError, ImageError, OutputError, RecordError, TargetError
from voxplain.records import (
    CODES,
    Attribution,
    Cost,
    Explanation,
    Provenance,
    TargetSummary,
)
from voxplain.records.archive import slugs
from voxplain.records.finding import finding
from voxplain.regions import importance
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume

AFFINE = np.array([
    [-0.66, 0.11, 0.31, 123.456789012],
    [0.09, 1.08, -0.43, -40.1],
    [0.21, 0.17, 2.24, 1 / 3],
    [0.0, 0.0, 0.0, 1.0],
])  # fmt: skip
OBLIQUE = Grid((5, 7, 11), AFFINE)
PLANE = Grid((5, 7), np.array([[0.7, 0.1, 3.3], [-0.2, 1.1, 1 / 3], [0.0, 0.0, 1.0]]))
TARGETS = ("class:lung left", "class:lung/left")


def provenance(image: Volume | None = None) -> Provenance:
    return Provenance(
        model="net",
        model_sha256="ab",
        case="patient",
        image_sha256="" if image is None else image.sha256(),
        method="smoothgrad",
        parameters={"size": (64, 64), "sigma": np.float64(0.1), "path": PurePosixPath("a/b")},
        seed=7,
        cost=Cost(3, 2, 1.25, 2**33),
        created="2025-01-01T00:00:00Z",
    )


def attribution(
    grid: Grid = OBLIQUE,
    n_channels: int = 2,
    dtype: type = np.float32,
    target: str = TARGETS[0],
) -> Attribution:
    values = np.random.default_rng(1).normal(size=(n_channels, *grid.shape)) * 1e-7
    return Attribution(
        values=values.astype(dtype),
        grid=grid,
        channels=tuple(f"ch{i}" for i in range(n_channels)),
        kind="contribution",
        unit="logit",
        target=target,
        score=1 / 3,
        gap=-1e-17,
        provenance=provenance(),
    )


def explanation(
    grid: Grid = OBLIQUE, *, overlap: bool = False, predicted: bool = True
) -> Explanation:
    rng = np.random.default_rng(4)
    image = Volume(rng.normal(size=(2, *grid.shape)), grid, ("ct", "pet"), "patient")
    prediction = LabelMap.of(rng.integers(0, 3, grid.shape), grid, {1: "a", 2: "b", 9: "absent"})
    masks = {name: rng.random(grid.shape) < 0.5 for name in ("left", "right")}
    regions = LabelMap.from_masks(masks, grid) if overlap else prediction
    maps = {name: attribution(grid, target=name) for name in TARGETS}
    return Explanation(
        image=image,
        prediction=prediction if predicted else None,
        regions=regions,
        table=importance(list(maps.values()), regions),
        targets=(
            *(TargetSummary(name, f"{name} over 3 voxels", 1 / 3, None, 4) for name in TARGETS),
            TargetSummary("class:dropped", "not kept", -2.0, 0.5, 1),
        ),
        kind="contribution",
        unit="logit",
        method="smoothgrad",
        provenance=provenance(image),
        attributions=maps,
        findings=(finding("VX103", "not applicable", "no voxel of 'absent'", "class:absent"),),
    )


def assert_equal_maps(one: Attribution, other: Attribution) -> None:
    assert one.values.dtype == other.values.dtype
    assert one.values.tobytes("C") == other.values.tobytes("C")
    assert one.grid == other.grid
    for name in ("channels", "kind", "unit", "target", "score", "gap", "provenance"):
        assert getattr(one, name) == getattr(other, name), name


def assert_equal_labels(one: LabelMap, other: LabelMap) -> None:
    np.testing.assert_array_equal(one.layers, other.layers)
    assert one.grid == other.grid
    assert dict(one.names) == dict(other.names)


# -- attribution --------------------------------------------------------------------
def test_sums_of_a_map() -> None:
    own = attribution()
    assert own.total() == pytest.approx(own.values.astype(np.float64).sum(), rel=1e-12)
    np.testing.assert_array_equal(own.flat(), own.values[0] + own.values[1])
    many = replace(attribution(Grid((400, 500), np.eye(3)), 1), channels=("ch0",))
    tenth = replace(many, values=np.full_like(many.values, 0.1))
    assert tenth.total() == pytest.approx(float(np.float32(0.1)) * 200_000, rel=1e-12)


@pytest.mark.parametrize("grid", [OBLIQUE, OBLIQUE.reorient("LPI"), PLANE])
@pytest.mark.parametrize("n_channels", [1, 2])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_map_is_read_back_to_the_bit(
    tmp_path: Path, grid: Grid, n_channels: int, dtype: type
) -> None:
    own = attribution(grid, n_channels, dtype)
    own.values.flat[:3] = [-0.0, np.nan, np.finfo(dtype).tiny / 4]
    path = own.save(tmp_path / "attribution_x.nii.gz")
    assert path == tmp_path / "attribution_x.nii.gz"
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "attribution_x.json",
        "attribution_x.nii.gz",
    ]
    assert_equal_maps(Attribution.load(path), own)
    assert_equal_maps(Attribution.load(tmp_path / "attribution_x"), own)


def test_suffix_is_added_and_other_dots_stay(tmp_path: Path) -> None:
    own = attribution()
    assert own.save(tmp_path / "map.v1").name == "map.v1.nii.gz"
    assert (tmp_path / "map.v1.json").exists()
    assert replace(own, gap=None).save(tmp_path / "map.nii.gz").exists()
    assert Attribution.load(tmp_path / "map").gap is None


def test_the_file_lies_on_the_patient(tmp_path: Path) -> None:
    image = nib.load(attribution().save(tmp_path / "map"))
    np.testing.assert_allclose(image.affine, AFFINE, atol=1e-5)
    assert image.shape == (5, 7, 11, 2)


@pytest.mark.parametrize("grid", [OBLIQUE, PLANE])
def test_a_header_that_was_moved_is_refused(tmp_path: Path, grid: Grid) -> None:
    path = attribution(grid).save(tmp_path / "map")
    image = nib.load(path)
    moved = image.affine.copy()
    moved[0, 3] += 0.01
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), moved), path)
    with pytest.raises(GridError, match="disagree on the grid"):
        Attribution.load(path)


def test_a_map_of_another_shape_is_refused(tmp_path: Path) -> None:
    path = attribution().save(tmp_path / "map")
    text = path.with_name("map.json").read_text()
    attribution(OBLIQUE.crop((0, 0, 0), (5, 7, 10))).save(path)
    path.with_name("map.json").write_text(text)
    with pytest.raises(GridError, match="disagree on the grid"):
        Attribution.load(path)
    with pytest.raises(GridError, match=r"must be \(2, \*\(5, 7, 11\)\), got \(1, 5, 7, 11\)"):
        replace(attribution(), values=np.zeros((1, *OBLIQUE.shape)))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    path = attribution().save(tmp_path / "map")
    sidecar = tmp_path / "map.json"
    known = json.loads(sidecar.read_text())
    for changed, message in [
        ("no json", r"map.json cannot be read"),
        ("[]", "does not hold 'voxplain attribution'"),
        (json.dumps({**known, "version": 99}), "version 99 .* reads version 1"),
        (json.dumps({k: v for k, v in known.items() if k != "unit"}), "incomplete: .*'unit'"),
    ]:
        sidecar.write_text(changed)
        with pytest.raises(RecordError, match=message):
            Attribution.load(path)
    sidecar.write_text(json.dumps(known))
    path.write_bytes(gzip.compress(b"no image"))
    with pytest.raises(ImageError, match=r"map.nii.gz"):
        Attribution.load(path)
    sidecar.unlink()
    with pytest.raises(RecordError, match=r"map.json cannot be read"):
        Attribution.load(path)
    with pytest.raises(OutputError):
        attribution().save(path / "below a file")


# -- explanation --------------------------------------------------------------------
@pytest.mark.parametrize("grid", [OBLIQUE, PLANE])
@pytest.mark.parametrize("overlap", [False, True])
@pytest.mark.parametrize("predicted", [False, True])
def test_an_explanation_is_read_back_equal(
    tmp_path: Path, grid: Grid, overlap: bool, predicted: bool
) -> None:
    own = explanation(grid, overlap=overlap, predicted=predicted)
    files = own.save(tmp_path / "out", maps=True)
    assert sorted(files) == sorted((tmp_path / "out").iterdir())
    expected = {
        *(["prediction.nii.gz"] if predicted else []),
        *(["regions.nii.gz"] if overlap or not predicted else []),
        "attribution_class_lung_left.nii.gz",
        "attribution_class_lung_left.json",
        "attribution_class_lung_left_2.nii.gz",
        "attribution_class_lung_left_2.json",
        "regions.csv",
        "regions.parquet",
        "provenance.json",
    }
    assert {path.name for path in files} == expected

    back = Explanation.load(tmp_path / "out", own.image)
    assert back.image.data is own.image.data
    assert (back.prediction is None) is not predicted
    if own.prediction is not None and back.prediction is not None:
        assert_equal_labels(back.prediction, own.prediction)
    assert_equal_labels(back.regions, own.regions)
    pd.testing.assert_frame_equal(back.to_frame(), own.to_frame(), check_exact=True)
    assert tuple(back.attributions) == TARGETS
    for name in TARGETS:
        assert_equal_maps(back[name], own[name])
    for name in ("targets", "kind", "unit", "method", "provenance", "findings"):
        assert getattr(back, name) == getattr(own, name), name


def test_maps_and_image_may_be_left_out(tmp_path: Path) -> None:
    own = explanation()
    files = own.save(tmp_path, maps=False)
    assert not [path for path in files if path.name.startswith("attribution")]
    back = Explanation.load(tmp_path)
    assert not back.has_image
    assert own.has_image
    with pytest.raises(ImageError, match=r"give it: Explanation.load\(folder, image="):
        _ = back.image
    assert replace(back, image=own.image).image is own.image
    assert "'patient' by smoothgrad: 3 targets, 4 regions, 0 maps" in repr(back)
    assert not back.attributions
    assert back.targets == own.targets


def test_provenance_lists_the_hash_of_every_file(tmp_path: Path) -> None:
    files = explanation().save(tmp_path)
    known = json.loads((tmp_path / "provenance.json").read_text())
    assert known["files"] == {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path.name != "provenance.json"
    }
    assert known["regions"]["names"] == {"0": "background", "1": "a", "2": "b", "9": "absent"}


def test_a_changed_folder_is_refused(tmp_path: Path) -> None:
    own = explanation()
    own.save(tmp_path)
    with pytest.raises(ImageError, match="not the image that was explained"):
        Explanation.load(tmp_path, Volume(np.zeros((1, *OBLIQUE.shape)), OBLIQUE))
    with (tmp_path / "regions.csv").open("a") as stream:
        stream.write("more\n")
    with pytest.raises(RecordError, match=r"regions.csv was changed since it was saved"):
        Explanation.load(tmp_path)
    (tmp_path / "regions.csv").unlink()
    with pytest.raises(RecordError, match=r"regions.csv cannot be read"):
        Explanation.load(tmp_path)
    with pytest.raises(RecordError, match=r"provenance.json cannot be read"):
        Explanation.load(tmp_path / "elsewhere")


def test_a_map_by_name() -> None:
    own = explanation()
    assert own[TARGETS[1]] is own.attributions[TARGETS[1]]
    with pytest.raises(TargetError, match=r"'class:dropped' was not kept .*keep=True"):
        own["class:dropped"]
    with pytest.raises(TargetError, match=r"did you mean .*'class:lung left'"):
        own["class:lung_left"]


def test_parts_must_fit_together() -> None:
    own = explanation()
    with pytest.raises(GridError, match="image and regions are on different grids"):
        replace(own, image=Volume(np.zeros((1, *PLANE.shape)), PLANE))
    with pytest.raises(TargetError, match="'x', which was not asked for"):
        replace(own, attributions={"x": attribution()})


# -- names, provenance, findings ----------------------------------------------------
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["class:lung left"], ["class_lung_left"]),
        (["a b", "a:b", "A/b", "a_b_2"], ["a_b", "a_b_2", "A_b_3", "a_b_2_2"]),
        (["../../etc/passwd", "C:\\x", "a.nii.gz"], ["etc_passwd", "C_x", "a_nii_gz"]),
        (["", "心", "é"], ["target", "target_2", "e"]),
        (["x" * 300, "x" * 299], ["x" * 80, "x" * 80 + "_2"]),
    ],
)
def test_slugs(names: Sequence[str], expected: Sequence[str]) -> None:
    assert list(slugs(names).values()) == expected
    assert list(slugs(names)) == names


def test_provenance_through_json_is_equal() -> None:
    own = provenance()
    assert own.parameters == {"size": [64, 64], "sigma": 0.1, "path": "a/b"}
    assert Provenance.from_dict(json.loads(json.dumps(own.to_dict()))) == own
    with pytest.raises(TypeError, match=r"parameters\['model'\]\[1\] is a object"):
        replace(own, parameters={"model": [1, object()]})


def test_findings_have_known_codes() -> None:
    own = finding("VX102", "issue", "gap 3 % of the score", "t")
    assert own.title == "completeness gap"
    assert CODES["VX102"].page == "checks/vx102.md"
    with pytest.raises(ValueError, match="unknown code 'VX999'"):
        finding("VX999", "issue", "")
    with pytest.raises(ValueError, match="unknown outcome 'bad'"):
        finding("VX102", "bad", "")  # type: ignore[arg-type]


def test_records_are_read_without_torch() -> None:
    code = "import sys, voxplain.records, voxplain.regions; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_explanation_can_be_copied_and_needs_an_image_or_none() -> None:
    own = explanation()
    back = pickle.loads(pickle.dumps(own))  # noqa: S301
    np.testing.assert_array_equal(back.image.data, own.image.data)
    with pytest.raises(TypeError, match="'image'"):
        Explanation(  # type: ignore[call-arg]
            **{name: getattr(own, name) for name in ("prediction", "regions", "table", "targets")},
            **{name: getattr(own, name) for name in ("kind", "unit", "method", "provenance")},
        )
