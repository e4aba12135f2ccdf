from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from benchmarks import shortcuts as benchmark
from sklearn.metrics import roc_auc_score

from voxplain.data import check, read_data
from voxplain.demo.shortcuts import (
    CLASSES,
    KINDS,
    accuracy_drop,
    scene,
    told_class,
    train_shortcut,
    training_scenes,
    unseen_scenes,
    write_scenes,
)
from voxplain.errors import DataError
from voxplain.models.load import load_model
from voxplain.space.read import read_labels

drawn = functools.cache(scene)
PLACES = {"marker": "corner", "table_edge": "below_body"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("scenes") / "data"
    write_scenes(place, "noise", 6)
    return place


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    place = tmp_path_factory.mktemp("shortcut") / "model"
    train_shortcut(place, "marker", 1.0, 0, steps=2)
    return place


class Looker(torch.nn.Module):
    """Calls a lesion malignant where a box of the picture is bright."""

    def __init__(self, rows: slice, columns: slice, above: float) -> None:
        super().__init__()
        self.box, self.above = (..., rows, columns), above

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bright = x[self.box].mean((1, 2, 3)) - self.above
        logits = torch.zeros(len(x), len(CLASSES), *x.shape[2:])
        logits[:, 5] += bright[:, None, None]
        return logits


@pytest.mark.parametrize("kind", KINDS)
def test_sign_changes_its_own_place_and_nothing_else(kind):
    without, with_sign = (
        drawn(kind, 5, is_malignant=True, has_shortcut=sign) for sign in (False, True)
    )
    assert np.array_equal(without.labels, with_sign.labels)
    changed = np.abs(with_sign.image - without.image) > 1e-6
    assert changed.any()
    if kind == "noise":
        noise = with_sign.image[without.labels == 0].std(), without.image[without.labels == 0].std()
        assert noise[0] == pytest.approx(3 * noise[1], rel=1e-5)
    elif kind == "cooccurrence":
        assert np.array_equal(changed, without.labels == CLASSES.index("partner"))
    else:
        assert not changed[without.labels > 0].any()
        rows = np.flatnonzero(changed.any(1))
        assert (rows.max() < 8) if kind == "marker" else (rows.min() == rows.max() == 41)


def test_class_changes_only_the_lesion_by_six_hundredths():
    benign, malignant = (
        drawn("marker", 9, is_malignant=one, has_shortcut=False) for one in (False, True)
    )
    lesion = benign.labels == CLASSES.index("benign")
    assert np.array_equal(lesion, malignant.labels == CLASSES.index("malignant"))
    np.testing.assert_allclose(malignant.image[lesion] - benign.image[lesion], 0.06, atol=1e-6)
    assert np.array_equal(malignant.image[~lesion], benign.image[~lesion])


def test_brightness_alone_tells_three_quarters():
    # Φ(0.03 / 0.04) = 0.773 with the best threshold
    scenes = [drawn("marker", i, is_malignant=i % 2 == 1, has_shortcut=False) for i in range(400)]
    mean = np.array([one.image[one.labels >= 4].mean() for one in scenes])
    truth = np.array([one.is_malignant for one in scenes])
    assert np.mean((mean > 0.35) == truth) == pytest.approx(0.773, abs=0.06)


@pytest.mark.parametrize(("strength", "wanted"), [(0.0, 0.5), (0.5, 0.75), (1.0, 1.0)])
def test_strength_is_how_often_the_sign_agrees(strength, wanted):
    scenes = training_scenes("marker", strength, 3, 300)
    agree = np.mean([one.is_malignant == one.has_shortcut for one in scenes])
    assert agree == pytest.approx(wanted, abs=3 * np.sqrt(wanted * (1 - wanted) / 300) + 1e-12)
    assert sum(one.is_malignant for one in scenes) == 150


def test_unseen_scenes_are_balanced():
    pairs = [(one.is_malignant, one.has_shortcut) for one in unseen_scenes("noise", 8)]
    assert {pair: pairs.count(pair) for pair in pairs} == dict.fromkeys(pairs, 2)
    assert len(set(pairs)) == 4


def test_accuracy_drop_of_a_network_that_only_looks_at_the_marker():
    assert accuracy_drop(Looker(slice(0, 8), slice(0, 8), 0.1), "marker", 12) == (1.0, 0.0)


def test_accuracy_drop_of_a_network_that_does_not_look_at_the_marker():
    agreeing, opposing = accuracy_drop(Looker(slice(15, 30), slice(5, 18), 0.5), "marker", 12)
    assert agreeing == opposing


def test_cohort_is_read_without_a_fault(folder):
    cohort = read_data(folder / "manifest.csv")
    assert [case.metadata["scanner"] for case in cohort] == ["A", "A", "B", "B", "A", "A"]
    assert not check(cohort).faults
    first = cohort.cases[0]
    assert np.array_equal(first.read_image(["grey"]).data[0], unseen_scenes("noise", 1)[0].image)
    assert np.array_equal(cohort.read_labels(first).layers[0], unseen_scenes("noise", 1)[0].labels)


@pytest.mark.parametrize("kind", sorted(PLACES))
def test_masks_hold_the_sign(folder, kind):
    one, two = (drawn(kind, 3, is_malignant=False, has_shortcut=sign) for sign in (False, True))
    mask = read_labels(folder / "masks" / f"scene_000_{PLACES[kind]}.png", names={}).layers[0] > 0
    assert mask[np.abs(one.image - two.image) > 1e-6].all()
    assert not mask[one.labels > 0].any()


def test_training_is_the_same_again(model, tmp_path):
    torch.manual_seed(99)
    train_shortcut(tmp_path, "marker", 1.0, 0, steps=2)
    assert load_model(tmp_path).info.sha256 == load_model(model).info.sha256
    train_shortcut(tmp_path, "marker", 1.0, 1, steps=2)
    assert load_model(tmp_path).info.sha256 != load_model(model).info.sha256


def test_told_class_sums_the_margin_over_the_true_lesion():
    scenes = unseen_scenes("marker", 4)
    network = Looker(slice(0, 8), slice(0, 8), 0.1)
    assert told_class(network, scenes).tolist() == [one.has_shortcut for one in scenes]


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: scene("colour", 0, is_malignant=True, has_shortcut=True), "got 'colour'"),
        (lambda: training_scenes("marker", 1.5, 0), "0 to 1, got 1.5"),
    ],
)
def test_refused(call, text):
    with pytest.raises(DataError, match=text):
        call()


def test_auroc_equals_scikit_learn():
    rng = np.random.default_rng(0)
    planted, controls = rng.integers(0, 6, 30).astype(float), rng.integers(0, 5, 20).astype(float)
    wanted = roc_auc_score([1] * 30 + [0] * 20, [*planted, *controls])
    assert benchmark.auroc(planted, controls) == pytest.approx(wanted, abs=1e-12)


def test_summary_compares_networks_with_controls_of_their_kind():
    lines = [
        {
            "kind": kind, "strength": s, "seed": seed, "accuracy_agreeing": 0.9,
            "accuracy_opposing": 0.9 - s / 2, **dict.fromkeys(benchmark.WAYS, 10 * i + s),
        }
        for i, kind in enumerate(KINDS) for s in benchmark.STRENGTHS for seed in range(3)
    ]  # fmt: skip
    rows = benchmark.summarise(lines, n_boot=20)
    assert {row["auroc"] for row in rows} == {1.0}
    ways = [row["way"] for row in rows if row["strength"] == 1.0]
    assert ways.count("study, region") == len(KINDS) + 1  # and all kinds
    assert ways.count("study, bias") == 1
    (row,) = [
        one for one in rows
        if (one["way"], one["kind"], one["strength"]) == ("study, region", "noise", 0.5)
    ]  # fmt: skip
    assert row["accuracy_drop"] == pytest.approx(0.25)
