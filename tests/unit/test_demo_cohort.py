"""The demo's cohort holds what it promises; the shipped networks are what they are said to be."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from voxplain.cli import demo
from voxplain.data import check, read_data
from voxplain.demo.cohort import MARKER, MODELS, SEED, models_path, strange, write_cohort
from voxplain.demo.shortcuts import CLASSES, accuracy_drop, corner_mask, scene, train_shortcut
from voxplain.errors import DataError
from voxplain.models.load import load_model
from voxplain.space import read_labels
from voxplain.study.anomalies import ALL_TARGETS


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return write_cohort(tmp_path_factory.mktemp("cohort") / "data", n=12)


def test_cohort_is_read_without_a_fault(made):
    cohort = read_data(made.manifest)
    assert len(cohort) == 12
    assert not check(cohort, "full").faults
    assert {"sex", "age", "scanner"} == set(cohort.cases[0].metadata)
    assert len({case.patient for case in cohort}) == 12


def test_marker_goes_with_nothing(made):
    cohort = read_data(made.manifest)
    corner = corner_mask() > 0
    rows = []
    for case in cohort:
        labels = cohort.read_labels(case).layers[0]
        image = case.read_image(["grey"]).data[0]
        rows.append((CLASSES.index("malignant") in labels, bool((image[corner] > 0.5).any())))
    assert {rows.count(pair) for pair in [(a, b) for a in (0, 1) for b in (0, 1)]} == {3}


def test_masks_are_where_the_marker_is(made):
    for case in read_data(made.manifest):
        mask = read_labels(made.masks[MARKER].replace("{case}", case.name), names={})
        assert np.array_equal(mask.layers[0], corner_mask())


def test_one_case_is_strange_and_keeps_its_lesion(made):
    names = [case.name for case in read_data(made.manifest)]
    assert made.anomaly in names
    plain = scene("marker", 3, is_malignant=True, has_shortcut=False)
    odd = strange(plain)
    changed = odd.image != plain.image
    assert 0.2 < changed.sum() / (plain.labels > 0).sum() < 0.6
    assert not changed[plain.labels >= CLASSES.index("benign")].any()
    assert not changed[plain.labels == 0].any()


def test_too_few_patients_are_refused(tmp_path):
    with pytest.raises(DataError, match="at least 8"):
        write_cohort(tmp_path / "few", n=7)


@pytest.mark.parametrize("name", MODELS)
def test_shipped_networks_use_the_marker_or_do_not(name):
    model = load_model(models_path() / name)
    agreeing, opposing = accuracy_drop(model.module, "marker")
    assert model.info.class_names == CLASSES
    if name == "shortcut":
        assert (agreeing, opposing) == (1.0, 0.0)
    else:
        assert agreeing > 0.75
        assert abs(agreeing - opposing) < 0.05
    size = (models_path() / name / "weights.safetensors").stat().st_size
    assert size < 300_000


@pytest.mark.slow
@pytest.mark.parametrize(("name", "strength"), [("clean", 0.0), ("shortcut", 1.0)])
def test_shipped_networks_can_be_trained_again(name, strength, tmp_path):
    train_shortcut(tmp_path, "marker", strength, SEED)
    one, two = (load_model(place) for place in (tmp_path, models_path() / name))
    for a, b in zip(
        one.module.state_dict().values(), two.module.state_dict().values(), strict=True
    ):
        np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-4)


def test_the_demo_points_at_the_strange_patient_and_at_the_shortcut(tmp_path):
    demo._study(tmp_path / "cohort", is_quiet=True)
    made = write_cohort(tmp_path / "again")  # which case is strange
    page = tmp_path / "cohort" / "report"
    scores = pd.read_csv(page / "anomalies.csv").query("model == 'clean'")
    whole = scores[scores["target"] == ALL_TARGETS].sort_values("score")
    assert whole["case"].iloc[-1] == made.anomaly
    assert whole["is_outlier"].tolist() == [False] * (len(whole) - 1) + [True]
    importance = pd.read_csv(page / "importance.csv").set_index(["model", "target", "region"])
    marker = {name: importance.loc[(name, "malignant", MARKER), "mean"] for name in MODELS}
    assert marker["shortcut"] > 0.1
    assert marker["clean"] < 0.01
    compared = pd.read_csv(page / "comparisons.csv").set_index(["target", "region"])
    assert compared.loc[("malignant", MARKER), "q"] <= 0.05
