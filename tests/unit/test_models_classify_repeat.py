"""One grey channel for a network of several: contributions and gradients of the copies add up."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from tests.classifier_cards import RGB, write_card
from torch import nn

from voxplain.attribution import explain
from voxplain.attribution.parse import targets_of
from voxplain.errors import ModelError
from voxplain.inference.compute import Compute
from voxplain.models import CardModel, load_model, wrap
from voxplain.models.repeat import Repeated
from voxplain.models.weights import weights_sha256
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.testing import phantoms

EXACT = Compute("cpu", precision="float64")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
SCALE = {"scale": {"from": [-1, 5]}}
IMAGENET = [SCALE, {"zscore": {"mean": MEAN, "std": STD}}]


@pytest.fixture
def grey() -> Volume:
    image = phantoms.volume(Grid((13, 21), np.diag([0.7, 1.1, 1])))
    return image.with_data(image.data.astype(np.float64))


def load(folder: Path, **settings: Any) -> CardModel:
    model = load_model(write_card(folder, "multi_label", rank=2, **settings))
    assert isinstance(model, CardModel)
    return model


@pytest.fixture
def model(tmp_path: Path) -> CardModel:
    return load(tmp_path / "grey", repeat=3, intensity=IMAGENET)


def fed(model: CardModel, image: Volume) -> torch.Tensor:
    """The image after the scale, in three copies, as a colour network's recipe says."""
    scaled = torch.from_numpy((image.data + 1) / 6)
    return scaled.expand(3, *scaled.shape[1:]).clone()


def test_the_gradient_is_the_sum_over_the_copies(model: CardModel, grey: Volume) -> None:
    assert isinstance(model.module, Repeated)
    found = explain(model, grey, "all", "gradient", compute=EXACT)
    copies = fed(model, grey).requires_grad_()
    mean, std = (torch.tensor(n, dtype=torch.float64).reshape(3, 1, 1) for n in (MEAN, STD))
    logits = model.module.network.double()(((copies - mean) / std)[None])[0]
    for i, summary in enumerate(found.targets):
        (gradient,) = torch.autograd.grad(logits[i], copies, retain_graph=True)
        assert (gradient.std(0) > 0).any()  # the copies do not count alike
        expected = gradient.sum(0, keepdim=True).numpy()
        values = found[summary.name].values
        np.testing.assert_allclose(values, expected, atol=1e-10 * np.abs(expected).max())
        assert summary.score == pytest.approx(float(logits[i].detach()), rel=1e-10)
    assert found.table.frame["channel"].unique().tolist() == ["cxr"]


def test_contributions_are_those_of_a_colour_picture_of_equal_channels(
    model: CardModel, grey: Volume, tmp_path: Path
) -> None:
    colour = load(tmp_path / "colour", channels=RGB, intensity=[SCALE])
    colour.module = Repeated(colour.module, 1, tuple(MEAN), tuple(STD))
    three = Volume(grey.data.repeat(3, axis=0), grey.grid, tuple(RGB))
    for method in ("integrated_gradients", "input_x_gradient"):
        one = explain(model, grey, "all", method, compute=EXACT)
        other = explain(colour, three, "all", method, compute=EXACT)
        for name in model.info.class_names:
            values = other[name].flat()
            assert np.abs(values).max() > 0
            np.testing.assert_allclose(one[name].flat(), values, atol=1e-10 * np.abs(values).max())


def test_one_mean_for_all_copies_stays_before_them(tmp_path: Path, grey: Volume) -> None:
    plain = load(tmp_path / "one", repeat=3, intensity=[{"zscore": {"mean": 0.5, "std": 2.0}}])
    np.testing.assert_allclose(plain.prepare(grey).data, (grey.data - 0.5) / 2)
    assert plain.prepare(grey).channels == ("cxr",)
    each = load(
        tmp_path / "each", repeat=3,
        intensity=[{"zscore": {"mean": [0.5] * 3, "std": [2.0] * 3}}],
    )  # fmt: skip
    np.testing.assert_array_equal(each.prepare(grey).data, grey.data)
    one, other = (explain(m, grey, "all", "gradient", compute=EXACT) for m in (plain, each))
    np.testing.assert_allclose([c.logit for c in one.classes], [c.logit for c in other.classes])
    np.testing.assert_allclose(
        one["nodule"].values / 2, other["nodule"].values, rtol=1e-9, atol=1e-15
    )


def test_the_copies_are_no_part_of_the_weights(model: CardModel) -> None:
    assert isinstance(model.module, Repeated)
    assert model.info.sha256 == weights_sha256(model.module.network)
    assert not {"mean", "std"} & model.module.state_dict().keys()
    assert model.describe_preparation()["repeat"] == 3
    assert not model.module.training


def test_a_segmentation_repeats_too(grey: Volume) -> None:
    network = nn.Conv2d(2, 2, 3, padding=1).double()
    model = wrap(network, classes=["background", "a"], channels=["cxr"], repeat=2, rank=2)
    target = targets_of("class:a@everywhere", [])
    found = explain(model, grey, target, "gradient", compute=EXACT)
    leaf = torch.from_numpy(grey.data).requires_grad_()
    network(leaf.expand(2, -1, -1)[None])[0, 1].sum().backward()
    assert leaf.grad is not None
    np.testing.assert_allclose(found["a@everywhere"].values, leaf.grad.numpy(), rtol=1e-10)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"repeat": 1}, r"input\.repeat: .*greater than or equal to 2, got 1"),
        ({"repeat": 3, "channels": RGB}, r"repeat copies one channel, and 3 are named"),
        ({"intensity": IMAGENET}, r"one for each of the 1 channels.* copies of it: repeat: 3"),
        ({"repeat": 3, "intensity": IMAGENET[::-1]}, r"z-score to be the last step"),
        ({"repeat": 2, "intensity": IMAGENET}, r"as the last step one for each of the 2 copies"),
        (
            {"repeat": 3, "intensity": [{"zscore": {**IMAGENET[1]["zscore"], "over": "nonzero"}}]},
            r"copies need over: all",
        ),
    ],
)
def test_faults_of_the_card(settings: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    folder = write_card(tmp_path / "net", rank=2)
    card = folder / "model.yaml"
    written = yaml.safe_load(card.read_text())
    written["input"] |= settings
    card.write_text(yaml.safe_dump(written))
    with pytest.raises(ModelError, match=sentence):
        load_model(folder)


def test_a_network_of_three_channels_is_told(tmp_path: Path) -> None:
    folder = write_card(tmp_path / "net", rank=2, repeat=3)
    card = folder / "model.yaml"
    card.write_text(card.read_text().replace("repeat: 3", "spacing: [1.0, 1.0]"))
    with pytest.raises(ModelError, match=r"takes 3 channels.*names 1 \(cxr\).*copies.*repeat: 3"):
        load_model(folder)
