from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from voxplain.data import Case, Cohort
from voxplain.errors import GridError, LabelError
from voxplain.space import write_nifti
from voxplain.testing.phantoms import oblique_grid
from voxplain.train import TrainingError
from voxplain.train.classes import join

NAMES = {0: "background", 1: "rib_left_1", 2: "rib_left_2", 3: "heart", 7: "aorta"}


def cohort_of(*cases: Case, classes: dict[int, str] | None = None) -> Cohort:
    names = NAMES if classes is None else classes
    return Cohort(Path(), "manifest", cases, ("ct",), names)


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Case, np.ndarray]:
    labels = np.random.default_rng(0).choice([0, 1, 2, 3, 7], (5, 7, 11)).astype(np.uint8)
    write_nifti(tmp_path / "labels.nii.gz", labels, oblique_grid())
    return Case("a", (tmp_path / "image.nii.gz",), tmp_path / "labels.nii.gz"), labels


def test_without_classes_every_label_is_one(labelled):
    case, labels = labelled
    joining = join(cohort_of(case), None)
    assert joining.class_names == ("background", "rib_left_1", "rib_left_2", "heart", "aorta")
    found = joining.read(case, oblique_grid())
    assert np.array_equal(found, np.searchsorted([0, 1, 2, 3, 7], labels))


def test_names_patterns_and_ids_are_joined_and_the_rest_is_background(labelled):
    case, labels = labelled
    joining = join(cohort_of(case), {"vessel": [7], "ribs": ["rib_*"]})
    assert joining.class_names == ("background", "vessel", "ribs")
    found = joining.read(case, oblique_grid())
    assert np.array_equal(found, np.select([labels == 7, np.isin(labels, [1, 2])], [1, 2], 0))
    assert found.dtype == np.uint8


def test_all_that_is_wrong_with_the_classes_is_told():
    with pytest.raises(TrainingError) as error:
        join(cohort_of(), {"ribs": ["ribs_*", "rib_left_1"], "left": ["rib_left_*"], "x": [9]})
    text = str(error.value)
    assert "ribs: no label 'ribs_*'" in text
    assert "left: label 'rib_left_1' is in ribs too" in text
    assert "x: no label 9; labels are 1, 2, 3, 7" in text


def test_of_many_labels_only_the_nearest_are_told():
    many = {i: f"rib_{i}" for i in range(1, 118)}
    with pytest.raises(TrainingError) as error:
        join(cohort_of(classes=many), {"a": ["rib_77x"], "b": [200]})
    text = str(error.value)
    assert "a: no label 'rib_77x'; the nearest of 117 are 'rib_77'" in text
    assert "labels are 1, 2, 3" in text
    assert "and 87 more" in text
    assert len(text) < 350
    with pytest.raises(TrainingError, match="no label 'liver'; known: rib_left_1, rib_left_2"):
        join(cohort_of(), {"a": ["liver"]})


def test_data_without_names_need_ids(labelled):
    case, labels = labelled
    cohort = cohort_of(case, classes={})
    with pytest.raises(TrainingError, match=r"do not name their labels.*labels\.json$"):
        join(cohort, None)
    with pytest.raises(TrainingError, match="no label 'heart'"):
        join(cohort, {"heart": ["heart"]})
    assert np.array_equal(join(cohort, {"heart": [3]}).read(case, oblique_grid()), labels == 3)


def test_a_label_that_is_not_declared_is_refused(labelled):
    case, _ = labelled
    names = {label: name for label, name in NAMES.items() if label != 7}
    with pytest.raises(LabelError, match=r"a: labels \[7\] occur and are not declared"):
        join(cohort_of(case, classes=names), None).read(case, oblique_grid())


def test_labels_on_another_grid_are_refused(labelled):
    case, _ = labelled
    with pytest.raises(GridError, match="a: labels and image are on different grids"):
        join(cohort_of(case), None).read(case, oblique_grid(seed=1))


def test_labels_to_be_ignored_are_refused(labelled):
    with pytest.raises(TrainingError, match="label 9 marks voxels to be ignored"):
        join(cohort_of(labelled[0], classes={**NAMES, 9: "ignore"}), None)


def test_masks_are_joined_and_the_later_class_has_a_shared_voxel(tmp_path):
    grid = oblique_grid()
    masks = {name: np.zeros(grid.shape, np.uint8) for name in ("rib_1", "rib_2", "heart", "skin")}
    masks["rib_1"][:2] = 1
    masks["rib_2"][2] = 1
    masks["heart"][1:2, :3] = 1
    masks["skin"][4] = 1
    for name, mask in masks.items():
        write_nifti(tmp_path / f"{name}.nii.gz", mask, grid)
    files = {name: tmp_path / f"{name}.nii.gz" for name in masks}
    case = Case("a", (tmp_path / "ct.nii.gz",), files)
    for first, second in (("ribs", "heart"), ("heart", "ribs")):
        given = {"ribs": ["rib_?"], "heart": ["heart"]}
        joining = join(cohort_of(case, classes={}), {name: given[name] for name in (first, second)})
        found = joining.read(case, grid)
        names = np.asarray(joining.class_names)[found]
        assert (names[0] == "ribs").all()
        assert (names[2] == "ribs").all()
        assert (names[1, :3] == second).all()
        assert (names[4] == "background").all()
    fewer = replace(case, labels={"heart": files["heart"]})
    joining = join(cohort_of(case, fewer, classes={}), {"ribs": ["rib_?"], "heart": ["heart"]})
    assert np.array_equal(joining.read(fewer, grid), masks["heart"] * 2)
