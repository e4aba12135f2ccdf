from __future__ import annotations

import functools
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

import voxplain
from voxplain.attribution.ask import ask
from voxplain.attribution.cam import GradCam
from voxplain.attribution.guided import GuidedBackprop
from voxplain.attribution.maps import compute_maps
from voxplain.attribution.targets import ClassTarget
from voxplain.data import read_data
from voxplain.demo.xray import BOX_COLUMNS, CLASSES, SHAPE, write_xrays, xray
from voxplain.demo.xray_train import NETWORKS, XrayRecipe, opacity_scores, train_xray_classifier
from voxplain.errors import DataError, ImageError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.space import read_image

drawn = functools.cache(xray)
SEEDS = range(12)
QUICK = XrayRecipe(steps=3, batch=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("xrays") / "data"
    write_xrays(place, range(10), range(500, 505))
    return place


@pytest.fixture(scope="module", params=list(NETWORKS))
def trained(request, folder):
    out = folder.parent / f"{request.param}_7"
    return request.param, train_xray_classifier(folder, out, request.param, 7, QUICK)


def test_one_seed_gives_one_picture_and_another_another():
    first, again, other = drawn(3), xray(3), drawn(4)
    assert first.image.sha256() == again.image.sha256() != other.image.sha256()
    assert np.array_equal(first.truth.layers, again.truth.layers)
    assert first.image.data.shape == (1, *SHAPE)
    assert np.array_equal(first.image.data, np.rint(first.image.data))
    assert 0 <= first.image.data.min() < first.image.data.max() <= 255


def test_a_second_picture_shows_the_same_patient_placed_otherwise():
    first, second = drawn(3), drawn(3, 1)
    assert first.patient == second.patient
    assert first.image.name != second.image.name
    assert first.is_opaque == second.is_opaque
    assert first.image.sha256() != second.image.sha256()


@pytest.mark.parametrize("seed", [0, 5, 11])
def test_an_opacity_brightens_its_own_pixels_only(seed):
    ill, well = drawn(seed, opacity=True), drawn(seed, opacity=False)
    inside = ill.truth.mask("opacity")
    change = (ill.image.data - well.image.data)[0]
    assert ill.is_opaque
    assert not well.is_opaque
    assert change[inside].mean() > 12
    rows, columns = np.nonzero(change)
    near = np.array([(rows.min(), columns.min()), (rows.max(), columns.max())])
    (i0, j0), (i1, j1) = np.argwhere(inside).min(0), np.argwhere(inside).max(0)
    assert np.all(near[0] >= (i0 - 9, j0 - 9))
    assert np.all(near[1] <= (i1 + 9, j1 + 9))


@pytest.mark.parametrize("seed", SEEDS)
def test_boxes_are_as_tight_as_they_can_be(seed):
    one = drawn(seed, opacity=True)
    inside = one.truth.mask("opacity")
    covered = np.zeros_like(inside)
    for i0, j0, i1, j1 in one.boxes:
        covered[i0:i1, j0:j1] = True
        part = inside[i0:i1, j0:j1]
        assert part[0].any()
        assert part[-1].any()
        assert part[:, 0].any()
        assert part[:, -1].any()
    assert not (inside & ~covered).any()
    assert 0.005 < inside.mean() < 0.12
    assert drawn(seed, opacity=False).boxes == ()


def test_some_have_two_opacities():
    n_boxes = [len(drawn(seed, opacity=True).boxes) for seed in SEEDS]
    assert min(n_boxes) == 1
    assert max(n_boxes) == 2


def test_grey_values_alone_do_not_tell_an_opacity():
    # each seed as it was drawn: no pair of one patient, as in a cohort
    pictures = [drawn(seed) for seed in range(60)]
    truth = [one.is_opaque for one in pictures]
    assert 18 < sum(truth) < 42
    rows, columns = SHAPE
    for part in (np.s_[:, :], np.s_[rows // 6 : rows * 3 // 4, columns // 8 : -columns // 8]):
        for percentile in (5, 25, 50, 75, 95, 100):
            score = [np.percentile(one.image.data[0][part], percentile) for one in pictures]
            auroc = roc_auc_score(truth, score)
            assert max(auroc, 1 - auroc) < 0.72, percentile


def test_the_letter_tells_nothing_unless_it_is_to():
    pictures = [drawn(seed) for seed in range(60)]
    has_letter = np.array([one.marker.any() for one in pictures])
    is_opaque = np.array([one.is_opaque for one in pictures])
    assert abs(has_letter[is_opaque].mean() - has_letter[~is_opaque].mean()) < 0.25
    for seed in range(8):
        planted = xray(seed, shortcut=1.0)
        assert planted.marker.any() == planted.is_opaque
        assert xray(seed, shortcut=0.0).marker.any() != planted.is_opaque
        assert (planted.image.data[0][planted.marker] == 250).all()
        rest = ~(planted.marker | xray(seed, shortcut=0.0).marker)
        same = planted.image.data[0] == xray(seed, shortcut=0.0).image.data[0]
        assert same[rest].all()


def test_another_shape_and_wrong_settings():
    assert xray(1, shape=(64, 100)).truth.layers.shape == (1, 64, 100)
    with pytest.raises(ImageError, match="at least 48"):
        xray(1, shape=(40, 80))
    with pytest.raises(ImageError, match="probability"):
        xray(1, shortcut=1.5)


def test_a_folder_is_read_as_it_was_drawn(folder):
    cohort = read_data(folder)
    boxes = pd.read_csv(folder / "boxes.csv")
    assert tuple(boxes.columns) == BOX_COLUMNS
    assert not cohort.faults
    assert len({case.patient for case in cohort}) == 15
    assert len(cohort) > 15  # some have two pictures
    for case in cohort:
        _, seed, picture = case.name.split("_")
        one = drawn(int(seed), int(picture))
        assert case.split == ("train" if int(seed) < 500 else "test")
        assert case.metadata == {
            "finding": CLASSES[one.is_opaque],
            "marker": float(one.marker.any()),
        }
        read = case.read_image()
        assert np.array_equal(read.data, one.image.data)
        assert read.grid.matches(one.image.grid)
        own = boxes[boxes.case == case.name]
        assert [tuple(row) for row in own[list(BOX_COLUMNS[2:])].to_numpy()] == list(one.boxes)
        assert set(own.target) <= {"opacity"}
        if one.is_opaque:
            truth = cohort.read_labels(case)
            assert np.array_equal(truth.mask("opacity"), one.truth.mask("opacity"))
        else:
            assert case.labels is None


def test_a_patient_is_in_one_split(tmp_path):
    with pytest.raises(DataError, match="seed 2 is twice"):
        write_xrays(tmp_path / "a", range(3), [2])
    with pytest.raises(DataError, match="no patient"):
        write_xrays(tmp_path / "b", [])
    assert not list(tmp_path.iterdir())


def test_a_trained_folder_is_a_model_of_its_architecture(trained, folder):
    name, path = trained
    model = voxplain.load_model(path)
    assert model.info.kind == "classification"
    assert tuple(model.info.class_names) == CLASSES
    assert NETWORKS[name]["target"].endswith(type(model.module).__name__)
    assert sum(p.numel() for p in model.module.parameters()) < 100_000
    image = read_image(folder / "xray_0000_0.png")
    prepared = model.prepare(image).data
    assert np.allclose(prepared, image.data / 127.5 - 1, atol=1e-6)
    scores, truth = opacity_scores(model, folder)
    cases = [case for case in read_data(folder) if case.split == "test"]
    assert truth.tolist() == [case.metadata["finding"] == "opacity" for case in cases]
    with torch.inference_mode():
        logits = model.module(torch.from_numpy(model.prepare(cases[0].read_image()).data[None]))
    assert np.isclose(scores[0], float(logits[0, 1] - logits[0, 0]), atol=1e-5)


def test_training_is_repeatable_and_leaves_the_callers_draws_alone(trained, folder, tmp_path):
    name, path = trained
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = train_xray_classifier(folder, tmp_path / path.name, name, 7, QUICK)
    assert torch.equal(torch.rand(3), expected)
    other = train_xray_classifier(folder, tmp_path / "other", name, 8, QUICK)
    weights = [(one / "weights.safetensors").read_bytes() for one in (path, again, other)]
    assert weights[0] == weights[1] != weights[2]
    assert (again / "model.yaml").read_text() == (path / "model.yaml").read_text()


def test_training_learns(trained, folder, tmp_path):
    # thirteen pictures learned by heart: the loss falls and the classes part
    name, _ = trained
    recipe = replace(XrayRecipe(), steps=25, batch=8, shift_pixels=0, gain=0.0)
    model = voxplain.load_model(train_xray_classifier(folder, tmp_path / "m", name, 0, recipe))
    scores, truth = opacity_scores(model, folder, "train")
    assert roc_auc_score(truth, scores) > 0.9


@pytest.mark.parametrize("method", [GuidedBackprop(), GradCam()])
def test_methods_that_need_rectifiers_and_layers_take_both(trained, folder, method):
    model = voxplain.load_model(trained[1])
    image = read_image(folder / "xray_0000_0.png")
    with open_pipeline(model, image, Compute("cpu")) as pipeline:
        question = ask(pipeline, image, [ClassTarget("opacity")], regions=None, seed=0)
        maps = compute_maps(question, method)
    assert maps.values.shape == (1, 1, *SHAPE)
    assert np.isfinite(maps.values).all()


def test_what_training_needs_is_told(folder, tmp_path):
    with pytest.raises(ModelError, match="no architecture 'vgg'"):
        train_xray_classifier(folder, tmp_path / "m", "vgg")
    write_xrays(tmp_path / "test_only", [], [1])
    with pytest.raises(DataError, match="no cases of the split train"):
        train_xray_classifier(tmp_path / "test_only", tmp_path / "m", "resnet")
    manifest = tmp_path / "test_only" / "manifest.csv"
    table = pd.read_csv(manifest).assign(split="train", finding="pneumonia")
    table.to_csv(manifest, index=False)
    with pytest.raises(DataError, match="finding is 'pneumonia'"):
        train_xray_classifier(tmp_path / "test_only", tmp_path / "m", "resnet")
    assert not (tmp_path / "m").exists()


@pytest.mark.slow
def test_the_example_trains_networks_and_prints_a_command_that_runs(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "trust_xray.py"
    few = ["--patients", "12", "--unseen", "8", "--seeds", "1", "--steps", "3"]
    made = [sys.executable, str(example), "--out", str(tmp_path), *few]
    printed = subprocess.run(made, check=True, capture_output=True, text=True).stdout
    command = shlex.split(printed.splitlines()[-1])
    assert command[:2] == ["voxplain", "assess"]
    light = ["--methods", "arun-gradient", "--n-cases", "2", "--stages", "1", "--quiet"]
    subprocess.run([sys.executable, "-m", "voxplain", *command[1:], *light], check=True)
    scores = pd.read_parquet(tmp_path / "assessment" / "scores.parquet")
    assert set(scores["model"]) == {"resnet_0", "densenet_0"}
    assert {"legacy_auprc", "average_precision"} <= set(scores["metric"])
