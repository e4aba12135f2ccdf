from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from voxplain.demo import brain_train as training
from voxplain.demo.brain import (
    CHANNELS,
    brain_acquisition,
    brain_case,
    brain_model_path,
    brain_patient,
)
from voxplain.demo.brain_train import (
    TRAINING_SEEDS,
    UNSEEN_SEEDS,
    BrainRecipe,
    evaluate,
    lesion_counts,
    train,
)
from voxplain.demo.train import predict
from voxplain.models import load_model
from voxplain.models.card_file import CARD, read_card
from voxplain.models.network import build_network
from voxplain.space.grid import Grid


@pytest.fixture(scope="module")
def model():
    return load_model(brain_model_path())


def noise_case(model, seed, channels):
    rng = np.random.default_rng(seed)
    data = rng.normal(size=(2, 53, 50, 49)).astype(np.float32)
    return data, (data[:1] > 1).astype(np.uint8)


def test_weights_fit_the_cards_network_and_are_small():
    card = read_card(brain_model_path() / CARD)
    network = build_network(card.network.target, card.network.arguments, brain_model_path())
    weights = brain_model_path() / "weights.safetensors"
    network.load_state_dict(load_file(weights), strict=True)
    assert weights.stat().st_size <= 3_000_000
    assert sum(p.numel() for p in network.parameters()) <= 700_000


def test_card_names_channels_classes_and_a_window_smaller_than_the_patient(model):
    assert model.info.class_names == ("background", "lesion")
    assert tuple(read_card(brain_model_path() / CARD).input.channels) == CHANNELS
    shape = np.array(model.grid_of(brain_acquisition(900)).shape)
    assert (shape >= 1.3 * np.array(model.info.window.size)).all()


def test_shipped_numbers_are_of_unseen_patients_and_of_an_imperfect_network():
    shipped = json.loads((brain_model_path() / "lesions.json").read_text())
    hit, false, missed = np.sum(shipped["lesions"], axis=0)
    assert shipped["seeds"] == list(UNSEEN_SEEDS)
    assert not set(shipped["seeds"]) & set(TRAINING_SEEDS)
    assert shipped["true_positive_rate"] == pytest.approx(hit / (hit + missed), abs=1e-4)
    assert shipped["false_discovery_rate"] == pytest.approx(false / (hit + false), abs=1e-4)
    assert 0.7 <= shipped["true_positive_rate"] <= 0.9
    assert 0.1 <= shipped["false_discovery_rate"] <= 0.4
    assert shipped["dice"] >= 0.6


def test_shipped_weights_find_lesions_of_other_unseen_patients(model):
    result = evaluate(model, [950, 951])
    assert result["true_positive_rate"] >= 0.6
    assert result["false_discovery_rate"] <= 0.6
    assert result["dice"] >= 0.5


def test_brain_case_shows_lesions_found_missed_and_falsely_found(model):
    image, truth = brain_case()
    found = predict(model, image) == 1
    hit, false, missed = lesion_counts(found, truth.mask(1), image.grid)
    assert hit >= 3
    assert false >= 1
    assert missed >= 1


@pytest.mark.parametrize("rank", [2, 3])
def test_lesions_are_counted_by_touch(rank):
    shape = (40, 11, 9)[:rank]
    grid = Grid(shape, np.eye(rank + 1) * np.array([*(0.7, 1.3, 2.1)[:rank], 1.0]))
    found, true = np.zeros((2, *shape), bool)
    middle = (5,) * (rank - 1)

    def put(mask, first, n):
        mask[(slice(first, first + n), *middle)] = True

    put(true, 1, 4), put(found, 4, 3)  # touched in one voxel
    put(true, 10, 5)  # missed
    put(found, 20, 3)  # false
    put(true, 27, 2), put(found, 28, 3)  # too small to be counted, but no false lesion
    put(found, 36, 2)  # too small to be false
    assert lesion_counts(found, true, grid) == (1, 1, 1)
    assert lesion_counts(np.zeros_like(found), true, grid) == (0, 0, 2)
    assert lesion_counts(found, np.zeros_like(true), grid) == (0, 3, 0)
    assert lesion_counts(np.zeros_like(found), np.zeros_like(true), grid) == (0, 0, 0)


def test_training_gives_a_model_that_loads_and_depends_on_the_seed_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_case", noise_case)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        train(tmp_path / name, BrainRecipe(steps=2, batch=1, seed=seed), [100, 101])
    one, same, other = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("one", "same", "other")
    )
    assert load_model(tmp_path / "one").info.n_classes == 2
    assert all(torch.allclose(one[key], same[key], atol=1e-6) for key in one)
    assert not all(torch.allclose(one[key], other[key], atol=1e-3) for key in one)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_windows_keep_image_and_labels_together_mirrored_or_not(share):
    case = noise_case(None, 5, None)
    card = read_card(brain_model_path() / CARD)
    recipe = BrainRecipe(batch=8, lesion_share=share)
    images, truth = training._batch(np.random.default_rng(1), [case], card, recipe)
    assert tuple(images.shape) == (8, 2, *card.window.size)
    assert np.array_equal(images[:, :1].numpy() > 1, truth.numpy() == 1)
    inner = images[:, 0, 10:38, 20, 20].numpy()
    lines = case[0][0].transpose(1, 2, 0).reshape(-1, 53)
    seen = {
        turn
        for row in inner
        for turn in (1, -1)
        if any(np.isclose(lines[:, i : i + 28], row[::turn]).all(1).any() for i in range(26))
    }
    assert seen == {1, -1}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_network_trained_on_lesions_in_flair_alone_finds_none_in_mprage(tmp_path):
    only = ("flair",)
    train(tmp_path, BrainRecipe(steps=200), range(100, 110), channels_with_lesions=only)
    model = load_model(tmp_path)
    assert evaluate(model, [950, 951], channels_with_lesions=only)["true_positive_rate"] > 0.5
    found = {}
    for shown in CHANNELS:
        image, truth = brain_patient(950, channels_with_lesions=(shown,))
        found[shown] = (predict(model, image)[truth.mask(1)] == 1).mean()
    assert found["flair"] > 0.4
    assert found["mprage"] < 0.05
