"""A case, a cohort, and its way into a manifest and back."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.data import Case, Cohort, DataError, read_data
from voxplain.data.metadata import metadata_of, split_of
from voxplain.errors import GridError, ImageError, LabelError, OutputError
from voxplain.space import write_nifti
from voxplain.testing import phantoms
from voxplain.testing.phantoms import oblique_grid

IMAGE = (Path("a.nii.gz"),)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": " "}, "the name of a case is also that of files, got ' '"),
        ({"name": "a/b"}, "got 'a/b'"),
        ({"name": ".."}, r"got '\.\.'"),
        ({"split": "training"}, "split is 'training'; choose one of train, validation, test, or"),
        ({"metadata": {"age": float("nan")}}, "metadata 'age' is nan, expected text or a finite"),
        ({"metadata": {"image_x": "y"}}, "metadata 'image_x' has a name that is taken"),
        ({"metadata": {"patient": "y"}}, "metadata 'patient' has a name that is taken"),
    ],
)
def test_cases_that_cannot_be(arguments, message):
    with pytest.raises(DataError, match=message):
        Case(**{"name": "a", "images": IMAGE, **arguments})


def test_a_case_does_not_follow_what_it_was_made_from():
    metadata, masks = {"age": 61.0}, {"liver": Path("liver.nii.gz")}
    case = Case("a", IMAGE, masks, metadata=metadata)
    metadata["age"] = 1.0
    masks.clear()
    assert case.metadata == {"age": 61.0}
    assert case.label_files == (Path("liver.nii.gz"),)
    assert pickle.loads(pickle.dumps(case)) == case  # noqa: S301 (goes to worker processes)
    assert Case("b", IMAGE).label_files == ()


def test_names_that_two_have():
    with pytest.raises(DataError, match="two channels have one name: ct; rename one"):
        Cohort(Path(), "images", (), channels=("ct", "ct"))
    with pytest.raises(DataError, match="two labels have one name: liver"):
        Cohort(Path(), "images", (), classes={1: "liver", 2: "liver"})


def test_cases_of_a_cohort():
    cases = (Case("a", IMAGE, split="train"), Case("b", IMAGE), Case("c", IMAGE, split="train"))
    cohort = Cohort(Path(), "images", cases, classes={1: "organ", 4: "ignore"})
    assert len(cohort) == 3
    assert list(cohort) == list(cases)
    assert cohort.case("b") is cases[1]
    assert cohort.of("train") == (cases[0], cases[2])
    assert cohort.of(None) == (cases[1],)
    assert cohort.ignored_label == 4
    with pytest.raises(DataError, match="no case 'd' among the 3 of images"):
        cohort.case("d")


# -- reading ----------------------------------------------------------------------------------
def test_image_and_label_map(tmp_path):
    image, labels = phantoms.volume(n_channels=2), phantoms.labels()
    files = [tmp_path / f"p_{i:04d}.nii.gz" for i in range(2)]
    for file, data in zip(files, image.data, strict=True):
        write_nifti(file, data, image.grid)
    write_nifti(tmp_path / "seg.nii.gz", labels.layers, labels.grid)
    case = Case("patient_1", tuple(files), tmp_path / "seg.nii.gz")
    read = case.read_image(("t1", "t2"))
    np.testing.assert_array_equal(read.data, image.data)
    assert (read.name, read.channels) == ("patient_1", ("t1", "t2"))
    cohort = Cohort(tmp_path, "images", (case,), classes={0: "background", 1: "liver"})
    assert cohort.read_labels(case).region_names == ("background", "liver", "label_2", "label_3")
    np.testing.assert_array_equal(cohort.read_labels(case).layers, labels.layers)
    with pytest.raises(LabelError, match="b: this case has no labels"):
        Case("b", IMAGE).read_labels()
    with pytest.raises(ImageError, match="no such file: a"):
        Case("b", IMAGE).read_image()


@pytest.fixture
def masks(tmp_path):
    """Boxes a and b are apart, c shares voxels with a, d is empty."""
    grid = oblique_grid()
    boxes = {"a": np.s_[:2, 1:4], "b": np.s_[3:, 4:], "c": np.s_[1:3, :2, 5:], "d": np.s_[:0]}
    arrays, files = {}, {}
    for name, box in boxes.items():
        arrays[name] = np.zeros(grid.shape, np.uint8)
        arrays[name][box] = 1
        files[name] = tmp_path / f"{name}.nii.gz"
        write_nifti(files[name], arrays[name], grid)
    return arrays, files


def test_masks_keep_all_their_voxels_in_few_layers(masks):
    arrays, files = masks
    names = {0: "background", 7: "a", 2: "c", 5: "b", 9: "d", 11: "nowhere"}
    read = Case("x", IMAGE, files).read_labels(names)
    assert len(read.layers) == 2  # a, b and d share one
    assert read.names == names
    for name, array in arrays.items():
        np.testing.assert_array_equal(read.mask(name), array > 0)
    assert Case("x", IMAGE, files).read_labels().label("c") == 3
    assert len(Case("x", IMAGE, {"b": files["b"]}).read_labels().layers) == 1


def test_masks_that_are_none(masks, tmp_path):
    _, files = masks
    write_nifti(tmp_path / "a.nii.gz", phantoms.labels().layers, oblique_grid())
    with pytest.raises(LabelError, match=r"a\.nii\.gz: a mask of one structure holds 0 and one"):
        Case("x", IMAGE, files).read_labels()
    with pytest.raises(LabelError, match="masks without a label: b, d; name each"):
        Case("x", IMAGE, files).read_labels({1: "a", 2: "c"})
    other = oblique_grid(seed=3)
    write_nifti(tmp_path / "c.nii.gz", np.ones(other.shape, np.uint8), other)
    with pytest.raises(GridError, match=r"different grids: .*b\.nii\.gz has .*c\.nii\.gz has"):
        Case("x", IMAGE, {k: files[k] for k in "bc"}).read_labels()
    with pytest.raises(LabelError, match="no mask was given"):
        Case("x", IMAGE, {}).read_labels()


# -- metadata ---------------------------------------------------------------------------------
def test_columns_become_numbers_only_as_a_whole():
    rows = [
        {"age": "61", "site": "007", "dose": "1e2", "kvp": "120", "sex": "F", "split": "a"},
        {"age": "n/a", "site": "12", "dose": "inf", "kvp": "", "sex": "NaN", "split": "b"},
    ]
    assert metadata_of(rows) == [
        {"age": 61.0, "site": "007", "dose": "1e2", "kvp": 120.0, "sex": "F", "meta_split": "a"},
        {"site": "12", "dose": "inf", "meta_split": "b"},
    ]


@pytest.mark.parametrize(
    ("text", "split"),
    [("Training", "train"), ("val", "validation"), (" test ", "test"), ("n/a", None), ("", None)],
)
def test_words_for_splits(text, split):
    assert split_of(text) == split
    with pytest.raises(DataError, match="split is 'holdout', expected one of train, training"):
        split_of("holdout")


# -- manifests --------------------------------------------------------------------------------
words = st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S")), min_size=1).filter(
    lambda text: not set(text) & set("/\\") and text.lower() not in ("n/a", "nan", "none", "<na>")
)
names = words.filter(lambda text: not text.startswith(".") and "#" not in text)
numbers = st.floats(allow_nan=False, allow_infinity=False, width=32)


@st.composite
def cohorts(draw):
    n_channels = draw(st.integers(1, 3))
    channels = [f"c{i}" for i in range(n_channels)] if draw(st.booleans()) else ()
    if n_channels > 1:
        channels = channels or [str(i) for i in range(n_channels)]
    kind = draw(st.sampled_from(["none", "map", "masks"]))
    is_told = draw(st.booleans())
    cases = []
    for name in draw(st.lists(names, min_size=1, max_size=4, unique=True)):
        labels = {
            "none": None,
            "map": Path("/data/labels") / f"{name}.nii.gz",
            "masks": {s: Path("/data") / name / f"{s}.nii.gz" for s in ("liver", "aorta")},
        }[kind]
        cases.append(
            Case(
                name,
                tuple(Path("/data") / name / f"{i}.nii.gz" for i in range(n_channels)),
                labels,
                draw(st.sampled_from([None, "train", "validation", "test"])),
                draw(st.none() | words),
                {"age": draw(numbers), "scanner": f"x{draw(words)}"} if is_told else {},
            )
        )
    classes = {"none": {}, "map": {1: "liver"}, "masks": {0: "background", 1: "aorta", 2: "liver"}}
    return Cohort(Path("/data"), "images", tuple(cases), tuple(channels), classes[kind])


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".parquet"])
@given(cohort=cohorts())
def test_a_manifest_read_back_is_the_same(suffix, cohort, tmp_path_factory):
    folder = tmp_path_factory.mktemp("m")
    read = read_data(cohort.write_manifest(folder / f"cases{suffix}"))
    assert read.cases == cohort.cases
    assert read.channels == cohort.channels
    assert read.classes == cohort.classes
    assert read.layout == "manifest"


def test_the_table_of_a_cohort(tmp_path):
    cases = (
        Case("a", (tmp_path / "a.nii",), tmp_path / "al.nii", "train", "p1", {"age": 61.0}),
        Case("b", (tmp_path / "b.nii",)),
    )
    cohort = Cohort(tmp_path, "images", cases, ("ct",))
    frame = cohort.to_frame()
    assert list(frame) == ["case", "image_ct", "label", "patient", "split", "age"]
    assert frame["age"].tolist()[0] == 61.0
    assert frame.loc[1, ["label", "patient", "split", "age"]].isna().all()
    assert list(Cohort(tmp_path, "images", ()).to_frame()) == ["case", "image"]


def test_paths_in_a_manifest(tmp_path):
    inside = Case("a", (tmp_path / "m" / "images" / "a.nii",))
    outside = Case("b", (tmp_path / "b.nii",))
    cohort = Cohort(tmp_path, "images", (inside, outside))
    cohort.write_manifest(tmp_path / "m" / "cases.csv")
    written = pd.read_csv(tmp_path / "m" / "cases.csv")["image"].tolist()
    assert written == ["images/a.nii", str(tmp_path / "b.nii")]


def test_manifests_that_cannot_be_written(tmp_path):
    case = Case("a", IMAGE)
    named = Cohort(tmp_path, "images", (case,), classes={1: "liver"})
    with pytest.raises(OutputError, match=r"x\.xlsx: a manifest ends in \.csv, \.tsv, \.parquet"):
        named.write_manifest(tmp_path / "x.xlsx")
    (tmp_path / "labels.json").write_text('{"1": "spleen"}')
    with pytest.raises(OutputError, match=r"labels\.json is there and names other labels"):
        named.write_manifest(tmp_path / "x.csv")
    assert not (tmp_path / "x.csv").exists()
    (tmp_path / "labels.json").write_text('{"1":"liver"}')
    named.write_manifest(tmp_path / "x.csv")
    assert json.loads((tmp_path / "labels.json").read_text()) == {"1": "liver"}
    uneven = Cohort(tmp_path, "images", (case, Case("b", ())))
    with pytest.raises(DataError, match="from 0 to 1 image files; mend the faults"):
        uneven.to_frame()
