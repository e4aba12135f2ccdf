from __future__ import annotations

import json

import numpy as np
import pytest
from monai.metrics import compute_dice
from safetensors.torch import load_file
from torch import as_tensor
from torch.nn import Conv3d

from voxplain.demo import STRUCTURES, acquisition, model_path
from voxplain.demo.train import TRAINING_SEEDS, UNSEEN_SEEDS, dice, evaluate, predict
from voxplain.errors import ModelError
from voxplain.models import load_model, wrap
from voxplain.models.card_file import read_card
from voxplain.models.network import build_network
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume


@pytest.fixture(scope="module")
def model():
    return load_model(model_path())


def test_weights_fit_the_cards_network_and_are_small():
    card = read_card(model_path() / "model.yaml")
    network = build_network(card.network.target, card.network.arguments, model_path())
    weights = model_path() / "weights.safetensors"
    network.load_state_dict(load_file(weights), strict=True)
    assert weights.stat().st_size <= 3_000_000


def test_card_names_the_structures_and_a_window_smaller_than_the_patient(model):
    assert model.info.class_names == ("background", *STRUCTURES)
    shape = np.array(model.grid_of(acquisition(900)).shape)
    assert (shape >= 1.3 * np.array(model.info.window.size)).all()


def test_shipped_dice_is_of_unseen_patients_and_high_enough():
    shipped = json.loads((model_path() / "dice.json").read_text())
    assert set(shipped["dice"]) == set(STRUCTURES)
    assert shipped["mean"] == pytest.approx(np.mean([*shipped["dice"].values()]), abs=1e-3)
    assert shipped["mean"] >= 0.85
    assert shipped["seeds"] == list(UNSEEN_SEEDS)
    assert len(shipped["seeds"]) >= 8
    assert not set(shipped["seeds"]) & set(TRAINING_SEEDS)


def test_shipped_weights_segment_unseen_patients(model):
    assert evaluate(model, [950, 951])["mean"] >= 0.85


def test_dice_agrees_with_monai_and_leaves_absent_structures_out():
    rng = np.random.default_rng(7)
    truth, found = rng.integers(0, 4, (2, 5, 7, 11))
    truth[truth == 2] = 0
    grid = Grid(truth.shape, np.diag([0.7, 1.1, 2.3, 1]))
    names = {1: "heart", 2: "liver", 3: "aorta"}
    labels = np.array([1, 3])[:, None, None, None]
    expected = compute_dice(
        as_tensor(found == labels)[None].float(), as_tensor(truth == labels)[None].float()
    )[0].tolist()
    scores = dice(found, LabelMap.of(truth, grid, names))
    assert scores == pytest.approx({"heart": expected[0], "aorta": expected[1]})


def test_a_model_without_windows_is_refused():
    network = Conv3d(1, 2, 1)
    whole = wrap(network, classes=["background", "heart"], channels=["ct"], rank=3)
    with pytest.raises(ModelError, match="Conv3d has none"):
        predict(whole, Volume(np.zeros((1, 5, 7, 11)), Grid((5, 7, 11), np.eye(4))))
