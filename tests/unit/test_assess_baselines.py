"""Trivial maps: closed forms, scikit-image, and refusal of cases that are tested."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from skimage.filters import sobel

from voxplain.assess.average_mask import AverageMask, average_masks, stretched
from voxplain.assess.baseline_maps import BASELINES, baseline_map, center, edges
from voxplain.attribution import ClassTarget, Difference, Everywhere
from voxplain.attribution.ask import ask
from voxplain.data import Case
from voxplain.errors import DataError, ImageError, LabelError, MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import wrap
from voxplain.space import write_nifti
from voxplain.space.grid import Grid
from voxplain.space.resample import resample
from voxplain.space.volume import Volume
from voxplain.testing.models import Linear, Pooled, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
GRID = oblique_grid((5, 9, 13))
FLAT = oblique_grid((9, 13), (0.7, 1.1))


@contextmanager
def question(image, targets="all", *, seed=0, n_channels=1):
    weight = np.array([[0.1, -0.2], [0.5, 0.1], [-0.3, 0.9]])[:, :n_channels]
    model = describe(Linear(weight, [0, -0.5, 0.8]), rank=image.grid.rank, n_channels=n_channels)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        yield ask(pipeline, image, targets, regions=None, seed=seed)


@pytest.mark.parametrize("grid", [GRID, FLAT], ids=["3D", "2D"])
@pytest.mark.parametrize("name", ["random", "edges", "intensity", "center", "prediction"])
def test_maps_of_every_target_are_at_least_zero(grid, name):
    with question(volume(grid, 2, seed=3), n_channels=2) as asked:
        found = baseline_map(name, asked)
    assert found.shape == (3, 1, *grid.shape)
    assert found.dtype == np.float64
    assert found.min() >= 0
    assert found.max() > 0


def test_edges_of_a_ramp_are_its_slope_per_mm():
    places = np.stack(np.meshgrid(*[np.arange(n) for n in GRID.shape], indexing="ij"))
    slope = np.array([1.5, -2.0, 0.25])  # per mm, along each axis
    ramp = np.tensordot(slope * GRID.spacing, places, axes=1)
    found = edges(Volume(np.stack([ramp, 2 * ramp]), GRID))
    inside = (slice(1, -1),) * 3
    assert found[inside] == pytest.approx(3 * np.linalg.norm(slope), rel=1e-12)


def test_edges_against_scikit_image():
    """It divides by the root of the rank, and not by two voxels."""
    for shape in ((9, 13), (5, 9, 13)):
        image = volume(Grid(shape, np.eye(len(shape) + 1)), seed=3)
        expected = sobel(image.data[0].astype(np.float64)) * np.sqrt(len(shape)) / 2
        assert edges(image) == pytest.approx(expected, abs=1e-12)


def test_a_picture_and_a_slice_have_one_answer():
    picture = volume(Grid((9, 13), np.diag([0.7, 1.1, 1])), seed=3)
    slice_ = Volume(picture.data[..., None], Grid((9, 13, 1), np.diag([0.7, 1.1, 5, 1])))
    assert edges(slice_)[..., 0] == pytest.approx(edges(picture), abs=1e-12)
    assert np.array_equal(center((9, 13, 1))[..., 0], center((9, 13)))
    mask = picture.data[0] > 1
    assert np.array_equal(stretched(mask[..., None], (5, 7, 1))[..., 0], stretched(mask, (5, 7)))


def test_center():
    found = center((9, 12))
    assert found[4].argmax() in (5, 6)
    assert found[4, 5] == pytest.approx(np.exp(-((0.5 / 3) ** 2) / 2))
    assert np.allclose(found, found[::-1, ::-1], rtol=1e-12)
    # one standard deviation is a quarter of the side
    assert center((17, 1))[8 + 4, 0] == pytest.approx(np.exp(-((16 / 17) ** 2) / 2))


def test_random_maps_follow_seed_image_and_target_alone():
    image = volume(GRID, seed=3)
    with question(image) as asked:
        every = baseline_map("random", asked)
    with question(image, ["class:class_2"]) as asked:
        one = baseline_map("random", asked)
        again = baseline_map("random", asked)
    assert np.array_equal(one[0], every[2])
    assert np.array_equal(one, again)
    with question(image, ["class:class_2"], seed=1) as asked:
        assert not np.array_equal(baseline_map("random", asked), one)
    with question(volume(GRID, seed=4), ["class:class_2"]) as asked:
        assert not np.array_equal(baseline_map("random", asked), one)
    assert not np.array_equal(every[0], every[1])
    assert abs(every.mean() - 0.5) < 5 / np.sqrt(12 * every.size)


def test_intensity_is_each_channels_height_above_its_minimum():
    image = volume(GRID, 2, seed=3)
    with question(image, n_channels=2) as asked:
        found = baseline_map("intensity", asked)[1, 0]
    data = image.data.astype(np.float64)
    assert found == pytest.approx(data[0] - data[0].min() + data[1] - data[1].min(), abs=1e-12)


def test_prediction_is_the_mask_of_the_targets_class():
    image = volume(GRID, seed=3)
    margin = ClassTarget("class_2", score="margin")
    with question(image, ["class:class_1", margin, "class:class_1@everywhere"]) as asked:
        found = baseline_map("prediction", asked)[:, 0]
        masks = [asked.predicted_mask(index).numpy() for index in (1, 2, 1)]
    x = image.data[0].astype(np.float64)
    logits = np.stack([0.1 * x, 0.5 * x - 0.5, -0.3 * x + 0.8])
    assert np.array_equal(found, np.stack(masks))
    assert np.array_equal(found[1], logits.argmax(0) == 2)
    assert 0 < found[1].sum() < found[1].size
    named = ClassTarget("class_1", Everywhere(), label="mine")
    with question(image, [named]) as asked:
        assert np.array_equal(baseline_map("prediction", asked)[0, 0], masks[0])
    both = Difference(ClassTarget("class_1"), ClassTarget("class_2"))
    with (
        question(image, [both]) as asked,
        pytest.raises(MethodError, match="has none; leave it out"),
    ):
        baseline_map("prediction", asked)


def test_a_classifier_predicts_no_mask():
    model = wrap(
        Pooled(Linear([[1.0], [0.0]])), kind="classification", classes=["a", "b"], rank=2,
        channels=["channel_0"],
    )  # fmt: skip
    image = volume(FLAT, seed=3)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        asked = ask(pipeline, image, "predicted", regions=None, seed=0)
        assert baseline_map("edges", asked).shape == (1, 1, 9, 13)
        with pytest.raises(MethodError, match="classifies whole images and predicts no mask"):
            baseline_map("prediction", asked)


def test_unknown_names():
    with (
        question(volume(GRID, seed=3)) as asked,
        pytest.raises(MethodError, match=r"no baseline 'edge'; did you mean 'edges'"),
    ):
        baseline_map("edge", asked)
    assert list(BASELINES) == [
        "random", "edges", "intensity", "center", "prediction", "average_mask",
    ]  # fmt: skip


# -- maps of another network ----------------------------------------------------------------
def test_a_given_map_is_resampled_from_its_own_grid(tmp_path):
    image, given = volume(GRID, seed=3), volume(GRID.respace((1.0, 1.0, 1.5)), seed=4)
    given = given.with_data(np.abs(given.data))
    write_nifti(tmp_path / "phantom_class_1.nii.gz", given.data[0], given.grid)
    with question(image, ["class:class_1"]) as asked:
        found = baseline_map(f"given:{tmp_path}/{{case}}_{{target}}.nii.gz", asked)
        with pytest.raises(ImageError, match="no such file"):
            baseline_map("given:nowhere.nii.gz", asked)
    expected = resample(given, GRID, fill=0.0).data[0]
    assert found[0, 0] == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_given_picture_covers_the_image(tmp_path):
    """It does not say where it lies; one of half the size is stretched."""
    image = volume(oblique_grid((8, 12), (0.7, 1.1)), seed=3)
    coarse = np.arange(24, dtype=np.float32).reshape(4, 6)
    np.save(tmp_path / "map.npy", coarse)
    with question(image) as asked:
        found = baseline_map(f"given:{tmp_path}/map.npy", asked)
    assert found.shape == (3, 1, 8, 12)
    # linear between the centres of the coarse pixels: means over their 2 × 2 fine ones are theirs
    inside = found[0, 0].reshape(4, 2, 6, 2).mean(axis=(1, 3))[1:-1, 1:-1]
    assert inside == pytest.approx(coarse[1:-1, 1:-1], abs=1e-3)
    np.save(tmp_path / "map.npy", -coarse)
    with (
        question(image) as asked,
        pytest.raises(MethodError, match="its smallest value is -23"),
    ):
        baseline_map(f"given:{tmp_path}/map.npy", asked)
    np.save(tmp_path / "two.npy", np.zeros((2, 5, 9, 13), np.float32))
    with (
        question(volume(GRID)) as asked,
        pytest.raises(MethodError, match="has one channel, got 2"),
    ):
        baseline_map(f"given:{tmp_path}/two.npy", asked)


# -- average mask -----------------------------------------------------------------------------
def cases(folder: Path, seeds, grid=GRID):
    """Cases with an image and a label map; NIfTI, or NPY in 2D."""
    found = []
    for seed in seeds:
        image, truth = volume(grid, seed=seed).data[0], labels(grid, 2, seed=seed).layers[0]
        if grid.rank == 3:
            files = folder / f"image{seed}.nii.gz", folder / f"truth{seed}.nii.gz"
            write_nifti(files[0], image, grid)
            write_nifti(files[1], truth, grid)
        else:
            files = folder / f"image{seed}.npy", folder / f"truth{seed}.npy"
            np.save(files[0], image)
            np.save(files[1], truth)
        found.append(Case(f"case{seed}", (files[0],), files[1], patient=f"Smith{seed}"))
    return found


def truth_of(grid, seed, name="label_1"):
    return labels(grid, 2, seed=seed).mask(name.replace("label", "organ")).astype(float)


def test_stretched_by_hand():
    assert stretched(np.array([1.0, 2, 4]), (6,)).tolist() == [1, 1, 2, 2, 4, 4]
    assert stretched(np.array([1.0, 2, 4]), (2,)) == pytest.approx([4 / 3, 10 / 3])
    values = np.random.default_rng(0).random((5, 7, 11))
    assert stretched(values, (5, 7, 11)) is values
    assert stretched(values, (4, 9, 3)).mean() == pytest.approx(values.mean(), rel=1e-12)


def test_mean_of_masks_on_one_grid(tmp_path):
    train, test = cases(tmp_path, (1, 2, 3)), cases(tmp_path, (9,))
    shape = GRID.reorient("RAS").shape
    found = average_masks(train, test, ["label_1", "label_2"], shape=shape)
    for name in ("label_1", "label_2"):
        expected = np.mean([truth_of(GRID, seed, name) for seed in (1, 2, 3)], axis=0)
        assert found[name].n == 3
        assert found[name].on(GRID) == pytest.approx(expected, abs=1e-12)
    turned = GRID.reorient("LSP")
    expected = resample(Volume(found["label_1"].on(GRID)[None], GRID), turned, order=0).data[0]
    assert np.array_equal(found["label_1"].on(turned), expected)
    again = average_masks(train[::-1], test, ["label_1"], shape=shape)["label_1"]
    assert again.values == pytest.approx(found["label_1"].values, abs=1e-12)


def test_mean_of_masks_on_different_grids(tmp_path):
    """A picture twice as fine is as much as one; the case without labels has no part."""
    fine = oblique_grid((18, 26), (0.3, 0.5), seed=1)
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    train = [*cases(tmp_path / "a", (1,), FLAT), *cases(tmp_path / "b", (2,), fine)]
    train.append(Case("none", cases(tmp_path / "c", (3,), FLAT)[0].images))
    found = average_masks(train, (), ["label_1"], shape=(9, 13))["label_1"]
    coarse = truth_of(fine, 2).reshape(9, 2, 13, 2).mean(axis=(1, 3))
    assert found.n == 2
    assert found.values == pytest.approx((truth_of(FLAT, 1) + coarse) / 2, abs=1e-12)
    with pytest.raises(DataError, match="none of 1 training cases has labels"):
        average_masks(train[2:], (), ["label_1"])
    with pytest.raises(LabelError, match="label_7"):
        average_masks(train, (), ["label_7"])
    with pytest.raises(DataError, match="case4 has 3 axes; give cases of one kind"):
        average_masks([train[0], *cases(tmp_path / "c", (4,))], (), ["label_1"])


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda case: Case(case.name, case.images), "1 by name, 0 by patient, 1 by the image"),
        (
            lambda case: Case("other", case.images[:1], patient="Jones"),
            "0 by name, 0 by patient, 1 by the image",
        ),
    ],
)
def test_tested_cases_are_refused(tmp_path, change, told):
    train = cases(tmp_path, (1, 2, 3))
    with pytest.raises(DataError, match=told) as error:
        average_masks(train, [change(train[1])], ["label_1"])
    assert "1 of 3 training cases are among the 1 tested ones" in str(error.value)
    assert "Smith" not in str(error.value)
    assert "case2" not in str(error.value)


def test_tested_patients_are_refused(tmp_path):
    train = cases(tmp_path, (1, 2, 3))
    test = cases(tmp_path, (9,))
    other = [Case("again", test[0].images, patient="Smith2")]
    with pytest.raises(DataError, match="0 by name, 1 by patient, 0 by the image") as error:
        average_masks(train, other, ["label_1"])
    assert "Smith" not in str(error.value)
    nobody = [Case(c.name, c.images, c.labels) for c in train]
    assert average_masks(nobody, [Case("x", test[0].images)], ["label_1"])["label_1"].n == 3


def test_average_mask_as_a_baseline():
    image = volume(GRID, seed=3)
    values = np.random.default_rng(0).random(GRID.reorient("RAS").shape)
    mean = AverageMask(values, 4)
    with question(image, ["class:class_1"]) as asked:
        found = baseline_map("average_mask", asked, averages={"class_1": mean})
        with pytest.raises(MethodError, match="no mean for the target class_1"):
            baseline_map("average_mask", asked)
    assert np.array_equal(found[0, 0], mean.on(GRID))
