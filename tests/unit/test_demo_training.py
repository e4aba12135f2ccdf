from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.torch import load_file

from voxplain.demo import model_path
from voxplain.demo import train as training
from voxplain.models import load_model
from voxplain.models.card_file import CARD, read_card


def noise_case(model, seed):
    rng = np.random.default_rng(seed)
    shape = (1, 50, 53, 35)
    return rng.normal(size=shape).astype(np.float32), rng.integers(0, 17, shape, np.uint8)


def test_training_gives_a_model_that_loads_and_depends_on_the_seed_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_case", noise_case)
    for name, seed in (("one", 0), ("same", 0), ("other", 1)):
        training.train(tmp_path / name, training.Recipe(steps=2, batch=1, seed=seed), [100, 101])
    one, same, other = (
        load_file(tmp_path / name / "weights.safetensors") for name in ("one", "same", "other")
    )
    assert load_model(tmp_path / "one").info.n_classes == 17
    assert all(np.allclose(one[key], same[key], atol=1e-6) for key in one)
    assert not all(np.allclose(one[key], other[key], atol=1e-3) for key in one)


def test_windows_lie_inside_the_case_and_keep_image_and_labels_together():
    labels = np.random.default_rng(0).integers(0, 17, (1, 50, 53, 35), np.uint8)
    card = read_card(model_path() / CARD)
    for share in (0.0, 1.0):
        recipe = training.Recipe(batch=8, structure_share=share)
        rng = np.random.default_rng(1)
        images, truth = training._batch(rng, [(labels * np.float32(2), labels)], card, recipe)
        assert tuple(images.shape) == (8, 1, *card.window.size)
        assert np.array_equal(images.numpy(), truth.numpy() * 2)


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_training_again_reaches_the_dice_that_is_asked_for(tmp_path):
    training.main(tmp_path)
    assert json.loads((tmp_path / "dice.json").read_text())["mean"] >= 0.85
