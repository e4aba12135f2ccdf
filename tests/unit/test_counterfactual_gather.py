"""Slices gathered from cohorts of every layout: windows, labels, parts, and what is refused."""

from __future__ import annotations

import json
import shutil
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from voxplain.counterfactual.classifier_networks import build, write_card
from voxplain.counterfactual.config import DataConfig, SplitConfig
from voxplain.counterfactual.cut import place, planes_of
from voxplain.counterfactual.division import PARTS, divide, patient_of
from voxplain.counterfactual.gather import Gathered
from voxplain.counterfactual.gather import gather as gather_into
from voxplain.counterfactual.slices import Slices, read_slices
from voxplain.counterfactual.slices_writer import slices_writer
from voxplain.data import Case, Cohort, read_data
from voxplain.errors import DataError, TrainingError
from voxplain.space import Grid, write_nifti
from voxplain.testing import phantoms

SHAPE = (12, 10, 6)
GRID = phantoms.oblique_grid(SHAPE, (1.0, 1.0, 3.0)).reorient("LPS")
SYNTHETIC = {"synthetic": {}}
REAL = Path(__file__).parents[3] / "shared" / "data"


def config(**more) -> DataConfig:
    given_values = {
        "size": (16, 16),
        "organ": ("kidney",),
        "min_organ_pixels": 5,
        "abnormal": SYNTHETIC,
        "split": {"validation": 0.2, "test": 0.2},
    }
    return DataConfig.model_validate({**given_values, **more})


def scan(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Make an image, and labels: kidney 1 in slices 1 to 4, tumour 2 of n pixels in slice n."""
    image = np.random.default_rng(number).normal(0, 5, SHAPE).astype(np.float32)
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:9, 2:8, 1:5] = 1
    image[labels == 1] += 100 + number
    for index in (2, 3):
        flat = np.zeros((7, 6), bool)
        flat.flat[: index * 3] = True
        labels[2:9, 2:8, index][flat] = 2
    image[labels == 2] += 80
    return image, labels


def nnunet(folder: Path, n: int = 6) -> Path:
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True)
    for number in range(n):
        image, labels = scan(number)
        write_nifti(folder / f"imagesTr/case_{number:05d}_0000.nii.gz", image, GRID)
        write_nifti(folder / f"labelsTr/case_{number:05d}.nii.gz", labels, GRID)
    about = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "kidney": 1, "tumor": 2, "cyst": 3},
        "numTraining": n,
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(about))
    return folder


@pytest.fixture(scope="module")
def kits(tmp_path_factory):
    return nnunet(tmp_path_factory.mktemp("kits") / "data")


@pytest.fixture(scope="module", autouse=True)
def scratch(tmp_path_factory):
    """Keep gathered slices below pytest's folder."""
    folder = tmp_path_factory.mktemp("gathered")
    before, tempfile.tempdir = tempfile.tempdir, str(folder)
    yield
    tempfile.tempdir = before


def gather(cohort, asked, seed, progress=None) -> Gathered:
    return gather_into(cohort, asked, seed, Path(tempfile.mkdtemp()), progress)


@pytest.fixture
def own(kits, tmp_path):
    """Copy the data, to be changed."""
    return Path(shutil.copytree(kits, tmp_path / "own"))


# -- cohorts ----------------------------------------------------------------------------------
def test_kits_layout_with_labels(kits):
    seen = []
    made = gather(
        read_data(kits),
        config(
            organ=("kidney", "tumor", "cyst"),
            abnormal={"labels": ["tumor"], "min_pixels": 6, "between": "normal"},
        ),
        seed=0,
        progress=lambda n, of: seen.append((n, of)),
    )  # fmt: skip
    assert made.n_cases == made.n_patients == {"train": 4, "validation": 1, "test": 1}
    assert seen == [(n, 10) for n in range(1, 11)]  # training images twice, for the window
    for slices in made.parts.values():
        assert set(slices.table["index"]) == {1, 2, 3, 4}
        # tumours of 6 and of 9 pixels; more than 6 is abnormal
        np.testing.assert_array_equal(slices.labels, slices.table["index"] == 3)
        areas = slices.truth.sum((1, 2))
        scale = slices.inside[0].sum() / (SHAPE[0] * SHAPE[1])
        wanted = slices.table["index"].map({1: 0, 2: 6, 3: 9, 4: 0}) * scale
        np.testing.assert_allclose(areas, wanted, atol=8)
        assert (areas[wanted == 0] == 0).all()
        assert slices.organ.sum((1, 2)).min() == slices.organ.sum((1, 2)).max()
        assert (slices.images[:, 0][~slices.inside] == -1).all()
        assert slices.organ[~slices.inside].sum() == 0
        assert set(slices.table["plane"]) == {"axial"}
    numbers = {n for slices in made.parts.values() for n in slices.table["patient"]}
    assert numbers == set(range(6))
    assert made.notes == ()


def test_slices_with_too_little_of_a_lesion_are_left_out_unless_normal(kits):
    """Slice 2 has 6 pixels of tumour, slice 3 has 9; normal slices hold no tumour at all."""

    def numbers(**more):
        made = gather(
            read_data(kits),
            config(abnormal={"labels": ["tumor"], "min_pixels": 6, **more}), 0,
        )  # fmt: skip
        for slices in made.parts.values():
            if not more:
                assert not slices.truth[slices.labels == 0].any()
        return sorted(set(made.parts["train"].table["index"])), made.notes

    assert numbers() == ([1, 3, 4], (
        "6 slices with 1 to 6 pixels of tumor are left out (data.abnormal.between)",
    ))  # fmt: skip
    assert numbers(between="normal") == ([1, 2, 3, 4], ())


def test_totalsegmentator_layout(tmp_path):
    for number in range(6):
        image, labels = scan(number)
        folder = tmp_path / f"s{number:04d}"
        (folder / "segmentations").mkdir(parents=True)
        write_nifti(folder / "ct.nii.gz", image, GRID)
        halves = {"kidney_left": labels.copy(), "kidney_right": labels.copy(), "liver": labels * 0}
        halves["kidney_left"][:5] = halves["kidney_right"][5:] = 0
        halves["liver"][0, 0, 0] = 1
        for name, mask in halves.items():
            write_nifti(folder / f"segmentations/{name}.nii.gz", (mask > 0).astype(np.uint8), GRID)
    made = gather(read_data(tmp_path), config(organ=("kidney_*",)), 0)
    assert {part: len(slices) for part, slices in made.parts.items()} == {
        "train": 16, "validation": 4, "test": 4,
    }  # fmt: skip
    left = gather(read_data(tmp_path), config(organ=("kidney_left",)), 0)
    assert (left.parts["test"].organ.sum() < made.parts["test"].organ.sum()).all()
    assert not made.parts["train"].labels.any()
    assert not made.parts["train"].has_truth
    assert made.preparation == left.preparation  # the window is of all labelled voxels


class Grey:
    size, low, high = (32, 32), 0.0, 255.0


def radiographs(folder: Path, rows: list[tuple[str, str, str]]) -> Cohort:
    """Write PNG files and a manifest of (case, patient, finding)."""
    for i, (name, _, finding) in enumerate(rows):
        grey = np.random.default_rng(i).integers(0, 200, (30, 20 + i), np.uint8)
        grey[5:10, 5:10] += 50 * (finding != "normal")
        Image.fromarray(grey).save(folder / f"{name}.png")
    table = pd.DataFrame(rows, columns=["case", "patient", "finding"])
    table.insert(1, "image", [f"{name}.png" for name in table["case"]])
    table.to_csv(folder / "manifest.csv", index=False)
    return read_data(folder)


def test_radiographs_with_a_column_of_findings(tmp_path):
    findings = ["normal", "pneumonia", "normal", "effusion"] * 4
    cohort = radiographs(
        tmp_path, [(f"x{i:02d}", f"Doe {i // 2}", f) for i, f in enumerate(findings)]
    )
    asked = config(organ=(), abnormal={"column": "finding"}, plane="coronal")
    made = gather(cohort, asked, 3)
    assert {part: len(slices) for part, slices in made.parts.items()} == {
        "train": 8, "validation": 4, "test": 4,
    }  # fmt: skip
    for slices in made.parts.values():
        numbers = slices.table["case"].str[1:].astype(int)
        np.testing.assert_array_equal(slices.labels, numbers % 2)
        assert set(slices.table["plane"]) == {"picture"}
        assert set(slices.table["index"]) == {0}
        assert slices.organ.all()
        assert not slices.has_truth
    assert not any("Doe" in str(slices.table) for slices in made.parts.values())
    assert made.n_patients == {"train": 4, "validation": 2, "test": 2}
    again = gather(cohort, asked, 3)
    for part, slices in made.parts.items():
        np.testing.assert_array_equal(slices.images, again.parts[part].images)


def test_a_column_of_numbers_and_its_faults(tmp_path):
    rows = [(f"x{i}", f"p{i}", str(i % 2)) for i in range(8)]
    cohort = radiographs(tmp_path, rows)
    asked = {"organ": ()}
    made = gather(cohort, config(**asked, abnormal={"column": "finding", "normal": ["0"]}), 0)
    for slices in made.parts.values():
        np.testing.assert_array_equal(slices.labels, slices.table["case"].str[1:].astype(int) % 2)
    for normal in (0, 0.0, "0.0"):  # numbers, however they are written
        again = gather(
            cohort, config(**asked, abnormal={"column": "finding", "normal": [normal]}), 0
        )
        for part, slices in made.parts.items():
            np.testing.assert_array_equal(again.parts[part].labels, slices.labels)
    with pytest.raises(DataError, match=r'e\.g\. --set "data\.abnormal\.normal=\[0\]"'):
        gather(cohort, config(**asked, abnormal={"column": "finding"}), 0)
    with pytest.raises(DataError, match=r"none of the values of 'finding' \(0, 1\) is in"):
        gather(cohort, config(**asked, abnormal={"column": "finding"}), 0)
    with pytest.raises(DataError, match="no column 'findings'; did you mean 'finding'"):
        gather(cohort, config(**asked, abnormal={"column": "findings"}), 0)
    cases = (*cohort.cases, Case("new", (tmp_path / "x0.png",)))
    with pytest.raises(DataError, match="new: nothing in 'finding'"):
        gather(Cohort(tmp_path, "manifest", cases),
               config(**asked, abnormal={"column": "finding", "normal": ["0"]}), 0)  # fmt: skip
    few = Cohort(tmp_path, "manifest", cohort.cases[:5])
    with pytest.raises(DataError, match="2 abnormal patients are too few for train, validation"):
        gather(few, config(**asked, abnormal={"column": "finding", "normal": ["0"]}), 0)


# -- the window -------------------------------------------------------------------------------
def test_the_window_is_of_labelled_voxels_of_training_images(own):
    made = gather(read_data(own), config(), 0)
    values = []
    for name in made.parts["train"].table["case"].unique():
        image, labels = scan(int(name[-5:]))
        values.append(image[labels > 0])
    low, high = np.percentile(np.concatenate(values).astype(float), [0.5, 99.5])
    assert (made.preparation.low, made.preparation.high) == pytest.approx((low, high), rel=1e-6)
    for part in ("validation", "test"):
        for name in made.parts[part].table["case"].unique():
            path = own / "imagesTr" / f"{name}_0000.nii.gz"
            write_nifti(path, scan(0)[0] * 50 + 1000, GRID)
    changed = gather(read_data(own), config(), 0)
    assert changed.preparation == made.preparation
    np.testing.assert_array_equal(changed.parts["train"].images, made.parts["train"].images)
    assert not np.array_equal(changed.parts["test"].images, made.parts["test"].images)


def test_the_window_of_blocks_is_of_their_training_slices(own):
    blocks = {"by": "slices", "validation": 0.25, "test": 0.25, "gap": 0}
    asked = config(split=blocks)
    made = gather(read_data(own), asked, 0)
    assert made.n_patients == dict.fromkeys(PARTS, 6)
    assert "too good; only for a try" in made.notes[0]
    for number in range(6):
        name = f"case_{number:05d}"
        image, _ = scan(number)
        training = set(made.parts["train"].table.query("case == @name")["index"])
        for index, plane in enumerate(planes_of(GRID, "axial")):
            if index not in training:
                place(plane, image, plane.take(image) * 9 - 77)
        write_nifti(own / f"imagesTr/{name}_0000.nii.gz", image, GRID)
    changed = gather(read_data(own), asked, 0)
    assert changed.preparation == made.preparation


def test_a_given_window_and_a_drawn_sample(kits, monkeypatch):
    made = gather(read_data(kits), config(intensity={"window": (-50, 250)}), 0)
    assert (made.preparation.low, made.preparation.high) == (-50, 250)
    whole = gather(read_data(kits), config(), 0).preparation
    monkeypatch.setattr("voxplain.counterfactual.gather.MOST_VOXELS", 100)
    drawn = [gather(read_data(kits), config(), 0).preparation for _ in range(2)]
    assert drawn[0] == drawn[1] != whole
    assert drawn[0].high == pytest.approx(whole.high, abs=10)


def test_the_window_of_named_labels(kits):
    """Kidney is about 100, tumour 180: named labels alone decide."""
    made = gather(read_data(kits), config(intensity={"foreground": ("kidney*",)}), 0)
    values = []
    for name in made.parts["train"].table["case"].unique():
        image, labels = scan(int(name[-5:]))
        values.append(image[labels == 1])
    wanted = np.percentile(np.concatenate(values).astype(float), [0.5, 99.5])
    assert (made.preparation.low, made.preparation.high) == pytest.approx(wanted, rel=1e-6)
    assert gather(read_data(kits), config(), 0).preparation.high > made.preparation.high + 50
    with pytest.raises(TrainingError, match=r"data\.intensity\.foreground: no label 'kidny'"):
        gather(read_data(kits), config(intensity={"foreground": ("kidny",)}), 0)


@pytest.mark.parametrize("window", [(-1, 0.5), (0, 9000), (5000, 5100)])
def test_a_window_of_other_intensities_is_refused_before_all_is_read(kits, window, tmp_path):
    seen = []
    with pytest.raises(DataError, match=r"lie between [\d.]+ and [\d.]+ .* blank; .*window=\["):
        gather_into(
            read_data(kits), config(intensity={"window": window}), 0, tmp_path / "a" / "b",
            lambda *now: seen.append(now),
        )  # fmt: skip
    assert seen == [(n, 10) for n in range(1, 5)]  # the four training cases
    assert list(tmp_path.iterdir()) == []


def test_a_window_of_unprepared_images_is_refused_for_prepared_ones(tmp_path):
    """Radiographs that a card scales to [-1, 1], and the preset's window of grey levels."""
    cohort = radiographs(tmp_path, [(f"x{i}", f"p{i}", ["normal", "x"][i % 2]) for i in range(8)])
    write_card(tmp_path / "card", build("small"), "small", Grey(), "grey")
    asked = {"organ": (), "abnormal": {"column": "finding"}, "size": (32, 32)}
    grey = gather(cohort, config(**asked, intensity={"window": (0, 255)}), 0)
    for window in ((-1, 1), (0, 255)):
        settings = config(**asked, intensity={"window": window, "model": str(tmp_path / "card")})
        if window == (0, 255):
            with pytest.raises(DataError, match="after the model's preparation lie between -"):
                gather(cohort, settings, 0)
        else:
            made = gather(cohort, settings, 0)
            spread = [np.std(one.parts["train"].images) for one in (made, grey)]
            assert spread[0] == pytest.approx(spread[1], rel=0.5)


# -- on disk ----------------------------------------------------------------------------------
def test_files_are_those_that_numpy_would_write(tmp_path):
    rng = np.random.default_rng(0)
    images, masks = rng.normal(size=(11, 5, 7)).astype(np.float32), rng.random((11, 5, 7)) < 0.5
    with slices_writer(tmp_path / "one", (5, 7), has_clean=True) as writer:
        for i in range(11):
            writer.add(
                ("NA" if i % 2 else "007", i, "axial", i), images=images[i], labels=i % 2,
                truth=masks[i], organ=~masks[i], inside=masks[i], clean=-images[i],
            )  # fmt: skip
        assert (writer.n, writer.n_abnormal, writer.is_varied) == (11, 5, True)
    made = read_slices(tmp_path / "one")
    assert made.table["case"].tolist()[:2] == ["007", "NA"]
    wanted = Slices(images[:, None], (np.arange(11) % 2).astype(np.int8), masks, ~masks, masks,
                    made.table, -images[:, None])  # fmt: skip
    wanted.write(tmp_path / "two")
    names = sorted(path.name for path in (tmp_path / "two").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "one").iterdir())
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with slices_writer(tmp_path / "one", (5, 7)) as writer:
        pass
    assert len(read_slices(tmp_path / "one")) == 0
    assert read_slices(tmp_path / "one").clean is None


def test_slices_of_other_shapes_are_refused_and_leave_nothing(tmp_path):
    mask = np.ones((5, 7), np.bool_)
    with (
        pytest.raises(DataError, match=r"truth is missing; organ has shape \(7, 5\), expected \(5"),
        slices_writer(tmp_path / "x", (5, 7)) as writer,
    ):
        writer.add(("a", 0, "axial", 0), images=mask * 1.0, labels=0, organ=mask.T, inside=mask)
    assert list(tmp_path.iterdir()) == []


def test_memory_does_not_grow_with_cases(tmp_path):
    grid = phantoms.oblique_grid((16, 16, 6))
    labels = np.zeros(grid.shape, np.uint8)
    labels[4:9, 4:9, 1:] = 1
    write_nifti(tmp_path / "labels.nii.gz", labels, grid)
    cases = []
    for i in range(24):
        image = np.random.default_rng(i).normal(0, 9, grid.shape).astype(np.float32)
        write_nifti(tmp_path / f"{i}.nii.gz", image, grid)
        cases.append(Case(f"c{i}", (tmp_path / f"{i}.nii.gz",), tmp_path / "labels.nii.gz"))
    asked = config(size=(192, 192), organ=(1,), intensity={"window": (-30, 30)})
    peaks = []
    for n in (6, 6, 24):  # what is made only once is made in the first
        tracemalloc.start()
        made = gather(Cohort(tmp_path, "manifest", tuple(cases[:n])), asked, 0)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    in_all = sum(one.images.nbytes for one in made.parts.values())
    assert in_all > 15e6
    assert peaks[2] - peaks[1] < 0.03 * in_all


# -- which slices -----------------------------------------------------------------------------
def test_slices_are_chosen_by_number_organ_and_spread(kits):
    def numbers(**more):
        return sorted(set(gather(read_data(kits), config(**more), 0).parts["test"].table["index"]))

    assert numbers() == [1, 2, 3, 4]
    assert numbers(slices=(0, 2, 3)) == [2, 3]
    assert numbers(max_slices=2) == [1, 4]
    assert numbers(organ=("kidney", 2), min_organ_pixels=41) == [1, 2, 3, 4]
    assert numbers(organ=(1,), min_organ_pixels=35) == [1, 2, 4]  # 42 pixels less the tumour
    assert numbers(organ=(1,), min_organ_pixels=36) == [1, 4]  # more than, not as many as
    with pytest.raises(DataError, match=r"case_00000: data\.slices: no slice 6; slices .* 0 to 5"):
        gather(read_data(kits), config(slices=(6,)), 0)


@given(
    n=st.integers(1, 60),
    shares=st.tuples(st.floats(0, 0.4), st.floats(0, 0.4)),
    gap=st.integers(0, 4),
    seed=st.integers(0, 50),
)
def test_blocks_are_apart_and_without_overlap(n, shares, gap, seed):
    case = Case("a", (Path("a.nii"),))
    split = SplitConfig(by="slices", validation=shares[0], test=shares[1], gap=gap)
    kept = np.cumsum(np.random.default_rng(seed).integers(1, 3, n)).tolist()
    parts = divide([case], split, seed).parts(case, kept)
    assert parts == divide([case], split, seed).parts(case, kept)
    found = sorted(i for chosen in parts.values() for i in chosen)
    assert len(found) == len(set(found))
    assert set(found) <= set(kept)
    if set(parts) == {"train"}:
        assert parts["train"] == kept
        assert n < 3 + 4 * (gap + 1) or min(shares) * n < gap + 2
    for a in parts:
        for b in parts:
            if a != b:
                assert min(abs(i - j) for i in parts[a] for j in parts[b]) > gap
                assert not any(min(parts[a]) < j < max(parts[a]) for j in parts[b])


@given(
    n_patients=st.integers(3, 20), validation=st.floats(0, 0.3), test=st.floats(0, 0.3),
    seed=st.integers(0, 50), said=st.sampled_from([(), ("test",), ("validation", "test")]),
)  # fmt: skip
def test_no_patient_is_in_two_parts(n_patients, validation, test, seed, said):
    cases = [
        Case(f"c{p}_{s}", (Path("a.nii"),), None, "train" if said else None, f"p{p}")
        for p in range(n_patients)
        for s in range(2)
    ]
    cases += [Case(f"own_{part}", (Path("a.nii"),), None, part) for part in said]
    made = divide(cases, SplitConfig(validation=validation, test=test), seed)
    patients = {part: {patient_of(case) for case in made.cases[part]} for part in PARTS}
    assert sum(map(len, patients.values())) == len(set().union(*patients.values()))
    assert sum(map(len, made.cases.values())) == len(cases)
    for part, share in (("validation", validation), ("test", test)):
        expected = 1 if part in said else max(1, round(share * n_patients))
        assert len(patients[part]) == expected
    assert made.cases == divide(cases, SplitConfig(validation=validation, test=test), seed).cases


def test_faults_of_a_split():
    def case(name, split=None, patient=None):
        return Case(name, (Path("a.nii"),), None, split, patient)

    with pytest.raises(DataError, match=r"2 patients are too few .* data\.split\.by=slices"):
        divide([case("a"), case("b"), case("c", patient="b")], SplitConfig(), 0)
    both = [
        case("a", "train", "p"), case("b", "test", "p"), case("c", "validation", "p"),
    ]  # fmt: skip
    with pytest.raises(DataError) as error:
        divide(both, SplitConfig(), 0)
    assert str(error.value).count("1 patients are in") == 3
    said = [case("a", "train"), case("b", "test"), case("c", "validation"), case("d")]
    assert divide(said, SplitConfig(), 0).notes == (
        "1 cases say no split, as others do, and are left out",
    )
    with pytest.raises(DataError, match="no case is of the split train"):
        divide(said[1:], SplitConfig(), 0)
    with pytest.raises(DataError, match="there is no case to draw from"):
        divide([case("b", "test")], SplitConfig(), 0)


# -- what is refused --------------------------------------------------------------------------
def test_labels_that_are_not_there(kits, tmp_path):
    with pytest.raises(TrainingError, match="no label 'kidny'; did you mean 'kidney'"):
        gather(read_data(kits), config(organ=("kidny",)), 0)
    with pytest.raises(DataError, match="no case has a slice with more than 5 pixels of cyst"):
        gather(read_data(kits), config(organ=("cyst",)), 0)
    cohort = read_data(kits)
    unnamed = Cohort(kits, "manifest", cohort.cases)
    with pytest.raises(DataError, match=r"data\.organ: the data do not name their labels") as told:
        gather(unnamed, config(), 0)
    assert str(told.value).endswith(f"name them in {kits / 'labels.json'}")
    assert len(gather(unnamed, config(organ=(1,)), 0).parts["test"]) == 4
    bare = Cohort(kits, "images", tuple(Case(c.name, c.images) for c in cohort))
    with pytest.raises(DataError, match="no case has labels"):
        gather(bare, config(), 0)
    some = Cohort(kits, "nnunet", (*cohort.cases, Case("u", cohort.cases[0].images, None, "test")),
                  classes=cohort.classes)  # fmt: skip
    assert gather(some, config(), 0).notes == ("1 cases without labels are left out",)
    with pytest.raises(DataError, match="there are no cases"):
        gather(Cohort(tmp_path, "images", ()), config(organ=(), abnormal={"column": "x"}), 0)


def test_parts_of_one_class_are_named(kits):
    with pytest.raises(DataError) as error:
        gather(read_data(kits), config(abnormal={"labels": ["cyst"]}), 0)
    for part in PARTS:
        assert f"{part}: no abnormal slice among" in str(error.value)
    with pytest.raises(DataError, match=r"train: no normal slice among .*change data\.split"):
        gather(read_data(kits), config(abnormal={"labels": ["kidney"], "min_pixels": 0}), 0)


def test_every_bad_file_is_named(own):
    broken = np.full(SHAPE, np.nan, np.float32)
    write_nifti(own / "imagesTr/case_00001_0000.nii.gz", broken, GRID)
    (own / "imagesTr/case_00003_0000.nii.gz").write_bytes(b"no image")
    other = phantoms.oblique_grid(SHAPE, seed=5)
    write_nifti(own / "labelsTr/case_00004.nii.gz", scan(4)[1], other)
    with pytest.raises(DataError) as error:
        gather(read_data(own), config(intensity={"window": (0, 1)}), 0)
    text = str(error.value)
    assert text.startswith("cases: 3 faults")
    assert "case_00001: " in text
    assert "720 of 720 voxels are NaN" in text
    assert "case_00003: " in text
    assert "case_00004: labels and image are on different grids" in text


def test_constant_images_and_several_channels(own, tmp_path):
    for number in range(6):
        write_nifti(own / f"imagesTr/case_{number:05d}_0000.nii.gz", np.ones(SHAPE), GRID)
    with pytest.raises(DataError, match=r"\[1, 1\], expected low < high: are the images constant"):
        gather(read_data(own), config(), 0)
    for number in range(4):
        Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(tmp_path / f"rgb{number}.png")
    cases = tuple(Case(f"c{i}", (tmp_path / f"rgb{i}.png",), metadata={"f": "normal" if i else "x"})
                  for i in range(4))  # fmt: skip
    with pytest.raises(DataError, match=r"got a colour picture .*convert\('L'\)\.save\(GREY\)"):
        gather(
            Cohort(tmp_path, "images", cases),
            config(organ=(), abnormal={"column": "f"}, split={"by": "slices"}),
            0,
        )


def test_patients_are_numbered_once_over_all_parts(kits):
    cohort = read_data(kits)
    made = gather(cohort, config(split={"by": "slices", "gap": 0}), 0)
    tables = pd.concat([slices.table for slices in made.parts.values()])
    assert tables.groupby("case")["patient"].nunique().max() == 1
    assert tables["patient"].nunique() == 6
    assert not tables.duplicated(["case", "index"]).any()


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"the real images are not at {REAL}")
def test_real_ct_is_cut_and_stacked_back():
    folder = REAL / "ct_thorax_abdomen"
    names = {int(k): v for k, v in json.loads((folder / "labels.json").read_text()).items()}
    case = Case("ct", (folder / "ct.nii.gz",), folder / "segmentation.nii.gz")
    cohort = Cohort(folder, "manifest", (case,), ("ct",), {0: "background", **names})
    made = gather(
        cohort,
        config(organ=("kidney_*",), size=(128, 128), pixel_mm=3.0,
               split={"by": "slices", "validation": 0.2, "test": 0.2},
               intensity={"window": (-1300, 3500)}),
        0,
    )  # fmt: skip
    assert all(len(slices) >= 3 for slices in made.parts.values())
    image = case.read_image()
    again = image.data[0].copy()
    again[:] = -9999
    for cut in made.preparation.pictures(image):
        place(cut.plane, again, made.preparation.intensity(cut.fit.back(cut.picture)))
    np.testing.assert_allclose(again, image.data[0], atol=1e-3)
    grid: Grid = image.grid
    kidneys = np.isin(
        case.read_labels(names).layers[0], [k for k, v in names.items() if v.startswith("kidney_")]
    )
    planes = planes_of(grid, "axial")
    for slices in made.parts.values():
        for index, organ in zip(slices.table["index"], slices.organ, strict=True):
            assert organ.sum() == planes[index].take(kidneys).sum()
