"""Classifiers through a card: their scores and gradients are those of the plain network."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tests.classifier_cards import OUTPUTS, RGB, densenet, write_card
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.attribution import explain
from voxplain.attribution.parse import targets_of
from voxplain.attribution.restore import restore_map
from voxplain.errors import ModelError, TargetError
from voxplain.inference.compute import Compute
from voxplain.models import CardModel, load_model, wrap
from voxplain.models.weights import weights_sha256
from voxplain.records import ClassScore, Explanation
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample_labels
from voxplain.space.volume import Volume
from voxplain.testing import phantoms
from voxplain.testing.conformance import check_model

EXACT = Compute("cpu", precision="float64")
SIZE = (26, 19)
STEPS = [{"scale": {"from": [-1, 4]}}]


def picture(n_channels: int = 1, shape: tuple[int, ...] = (21, 33), **fields: Any) -> Volume:
    """A picture as a PNG file is read: diagonal affine, rows first."""
    image = phantoms.volume(Grid(shape, np.diag([*(0.7, 1.1, 1.9)[: len(shape)], 1])), n_channels)
    return replace(image, data=image.data.astype(np.float64), **fields)


@pytest.fixture
def card(tmp_path: Path) -> Any:
    def write(output: str = "softmax", **settings: Any) -> CardModel:
        settings = {"intensity": STEPS} | settings
        if not {"rank", "size"} & settings.keys():
            settings["size"] = list(SIZE)
        folder = tmp_path / f"{output}_{len(list(tmp_path.iterdir()))}"
        model = load_model(write_card(folder, output, **settings))
        assert isinstance(model, CardModel)
        return model

    return write


def autograd(model: CardModel, image: Volume, function: Any) -> tuple[float, NDArray[np.float64]]:
    """Value and gradient of a function of the plain module's logits at the prepared image."""
    leaf = torch.from_numpy(model.prepare(image).data.copy()).requires_grad_()
    network = model.module.double().eval()
    value = function(network(leaf[None])[0])
    (gradient,) = torch.autograd.grad(value, leaf)
    network.float()
    return float(value.detach()), gradient.numpy()


def scores_of(logits: torch.Tensor, i: int, activation: str) -> dict[str, torch.Tensor]:
    """Every score by its definition, written out."""
    if activation == "sigmoid":
        p = 1 / (1 + (-logits[i]).exp())
        return {"logit": logits[i], "probability": p, "margin": logits[i],
                "log_odds": (p / (1 - p)).log()}  # fmt: skip
    p = logits.exp()[i] / logits.exp().sum()
    others = torch.stack([logit for j, logit in enumerate(logits) if j != i])
    return {"logit": logits[i], "probability": p, "margin": logits[i] - others.max(),
            "log_odds": (p / (1 - p)).log()}  # fmt: skip


# -- exactness ----------------------------------------------------------------------------
@pytest.mark.parametrize("output", OUTPUTS)
@pytest.mark.parametrize("score", ["logit", "probability", "log_odds", "margin"])
def test_gradient_of_every_score_is_autograd(card: Any, output: str, score: str) -> None:
    model, image = card(output), picture()
    info = model.info
    targets = targets_of(
        [f"class:{name}" for name in info.class_names], info.class_names, score=score
    )  # type: ignore[arg-type]
    labels = phantoms.labels(image.grid)
    found = explain(model, image, targets, "gradient", regions=labels, compute=EXACT)
    grid = model.grid_of(image.grid)
    assert grid.shape == SIZE
    regions = resample_labels(labels, grid)
    for i, summary in enumerate(found.targets):
        value, gradient = autograd(
            model, image, lambda logits, i=i: scores_of(logits, i, info.activation)[score]
        )
        assert summary.score == pytest.approx(value, rel=1e-10)
        restored = restore_map(gradient, "sensitivity", grid, image.grid)
        scale = np.abs(gradient).max()
        assert scale > 0
        np.testing.assert_allclose(found[summary.name].values, restored, rtol=0, atol=1e-10 * scale)
        rows = found.table.frame.query("target == @summary.name").set_index("region")
        for region in regions.region_names:
            inside = gradient[0][regions.mask(region)]
            assert rows.loc[region, "positive"] == pytest.approx(inside[inside > 0].sum(), 1e-10)
            assert rows.loc[region, "negative"] == pytest.approx(inside[inside < 0].sum(), 1e-10)
        assert rows["share"].sum() == pytest.approx(1)


def test_difference_of_two_classes(card: Any) -> None:
    model, image = card(), picture(shape=SIZE)
    found = explain(model, image, "class:effusion minus class:normal", "gradient", compute=EXACT)
    value, gradient = autograd(model, image, lambda logits: logits[2] - logits[0])
    assert found.targets[0].score == pytest.approx(value, rel=1e-10)
    assert found.targets[0].description == "logit of effusion minus logit of normal"
    values = found.attributions["effusion minus normal"].values
    np.testing.assert_allclose(values, gradient, atol=1e-10 * np.abs(gradient).max())


@pytest.mark.parametrize("rank", [2, 3])
def test_integrated_gradients_are_complete_on_both_grids(rank: int) -> None:
    shape = (13, 9, 7)[:rank]
    layer = nn.Conv2d if rank == 2 else nn.Conv3d
    network = nn.Sequential(layer(1, 3, 3), nn.Tanh(), nn.Flatten(), nn.LazyLinear(2)).double()
    network(torch.zeros(1, 1, *shape, dtype=torch.float64))
    model = wrap(network, kind="classification", classes=["a", "b"], channels=["t1"], size=shape)
    image = phantoms.volume(phantoms.oblique_grid((16, 12, 10)[:rank], (0.7, 1.1, 2.3)[:rank]))
    found = explain(model, image, "all", "integrated_gradients", compute=EXACT)
    prepared = torch.from_numpy(model.prepare(image).data).double()[None]
    change = (network(prepared) - network(torch.zeros_like(prepared)))[0].detach()
    for i, summary in enumerate(found.targets):
        rows = found.table.frame.query("target == @summary.name")
        total = float((rows["positive"] + rows["negative"]).sum())
        assert total == pytest.approx(float(change[i]), rel=1e-6)
        assert found[summary.name].total() == pytest.approx(total, rel=1e-9)
        assert abs(summary.gap) < 1e-6 * abs(float(change[i]))


@pytest.mark.parametrize("shape", [(21, 33), (40, 11)])
def test_a_fixed_size_is_bilinear_interpolation(card: Any, shape: tuple[int, int]) -> None:
    image = picture(shape=shape)
    prepared = card(intensity=[]).prepare(image)
    whole = torch.from_numpy(image.data)[None]
    expected = F.interpolate(whole, SIZE, mode="bilinear", align_corners=False)[0]
    np.testing.assert_allclose(prepared.data, expected.numpy(), atol=1e-12)
    area = np.prod(prepared.grid.spacing) * prepared.grid.n_voxels
    assert area == pytest.approx(image.grid.voxel_mm3 * image.grid.n_voxels)


# -- what the model says ------------------------------------------------------------------
@pytest.mark.parametrize("output", OUTPUTS)
def test_the_answer_of_every_class_is_kept(card: Any, output: str, tmp_path: Path) -> None:
    model, image = card(output), picture()
    asked = f"class:{model.info.class_names[-1]}"
    found = explain(model, image, asked, "gradient", compute=EXACT)
    prepared = torch.from_numpy(model.prepare(image).data)[None]
    with torch.no_grad():
        logits = model.module.double()(prepared)[0]
    p = logits.softmax(0) if output == "softmax" else logits.sigmoid()
    assert [c.name for c in found.classes] == list(model.info.class_names)
    np.testing.assert_allclose([c.logit for c in found.classes], logits, rtol=1e-12)
    np.testing.assert_allclose([c.probability for c in found.classes], p, rtol=1e-12)
    assert found.prediction is None
    assert found.table.regions == ("image",)
    found.save(tmp_path / "result")
    assert Explanation.load(tmp_path / "result").classes == found.classes


def test_a_number_without_activation_has_no_probability() -> None:
    network = nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = wrap(network, kind="classification", classes=["age"], channels=["cxr"], rank=2,
                 activation="none")  # fmt: skip
    found = explain(model, picture(), "all", "gradient")
    assert found.classes == (ClassScore("age", found.classes[0].logit, None),)
    assert found.targets[0].score == pytest.approx(found.classes[0].logit, rel=1e-5)
    with pytest.raises(TargetError, match="needs an activation"):
        explain(model, picture(), targets_of("class:age", ["age"], score="probability"))


def test_a_segmentation_has_no_classes_of_the_whole_image() -> None:
    model = wrap(nn.Conv2d(1, 2, 3, padding=1), classes=["background", "b"], channels=["cxr"],
                 rank=2)  # fmt: skip
    assert explain(model, picture(), "class:b@everywhere", "gradient").classes == ()


@pytest.mark.parametrize("reduction", ["mean", "weighted", "dice"])
def test_there_is_nothing_to_reduce(card: Any, reduction: str) -> None:
    targets = targets_of("class:normal", [], reduction=reduction)  # type: ignore[arg-type]
    with pytest.raises(TargetError, match=rf"{reduction}.*one number a class; leave the red"):
        explain(card(), picture(), targets, "gradient")


def test_given_regions_divide_the_image(card: Any) -> None:
    image = picture()
    halves = np.zeros(image.grid.shape, np.uint8)
    halves[:, :13] = 1
    labels = LabelMap.of(halves, image.grid, {1: "left half"})
    found = explain(card(), image, "class:normal", "gradient", regions=labels)
    assert found.table.regions == ("background", "left half")
    assert found.regions.grid == image.grid


# -- MONAI's networks ---------------------------------------------------------------------
VIT = {
    "target": "monai.networks.nets.ViT",
    "arguments": {
        "spatial_dims": 2, "in_channels": 1, "img_size": [16, 24], "patch_size": [8, 8],
        "hidden_size": 12, "mlp_dim": 16, "num_layers": 1, "num_heads": 2,
        "classification": True, "num_classes": 3, "post_activation": "none",
    },
}  # fmt: skip


def test_the_first_of_several_outputs_counts(card: Any) -> None:
    model, image = card(network=VIT, size=[16, 24]), picture(shape=(16, 24))
    logits, hidden = model.module(torch.from_numpy(model.prepare(image).data).float()[None])
    assert len(hidden) == 1
    found = explain(model, image, "all", "gradient")
    np.testing.assert_allclose([c.logit for c in found.classes], logits[0].tolist(), rtol=1e-5)


def test_a_network_of_one_shape_says_so(card: Any) -> None:
    with pytest.raises(ModelError, match=r"takes one shape only, say so: input\.size"):
        card(network=VIT, rank=2)


RESNET = {
    "target": "monai.networks.nets.resnet10",
    "arguments": {"spatial_dims": 2, "n_input_channels": 3, "num_classes": 1,
                  "widen_factor": 0.1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("output", "settings", "image"),
    [
        ("one_logit", {"size": [26, 19]}, picture()),
        ("softmax", {"rank": 2, "intensity": ["zscore"]}, picture()),
        ("multi_label", {"size": [24, 30], "channels": RGB}, picture(3, channels=tuple(RGB))),
        ("one_logit", {"size": [24, 30], "channels": RGB, "network": RESNET}, picture(3)),
        ("softmax", {"size": [24, 30], "repeat": 3}, picture()),
        ("softmax", {"network": VIT, "size": [16, 24]}, picture()),
        ("softmax", {"size": [17, 14, 20], "orientation": "RAS"},
         phantoms.volume(phantoms.oblique_grid((15, 17, 12)))),
        ("one_logit", {"rank": 3, "spacing": [1.0, 1.0, 1.0], "orientation": "LPS"},
         phantoms.volume(phantoms.oblique_grid((20, 15, 8)))),
    ],
    ids=["size", "any size", "colour", "resnet", "repeat", "vit", "3D", "3D spacing"],
)  # fmt: skip
def test_conforms(card: Any, output: str, settings: dict[str, Any], image: Volume) -> None:
    check_model(card(output, **settings), image)


# -- a network in the user's hands --------------------------------------------------------
class InPlace(nn.Module):
    """Its first layer changes its input; batch norm learns while it trains."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.ReLU(inplace=True)
        self.rest = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2),
        )  # fmt: skip

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.rest(self.first(windows))


@pytest.mark.parametrize("repeat", [None, 2])
def test_a_network_in_training_comes_back_unchanged(repeat: int | None) -> None:
    network = InPlace().train()
    if repeat:
        network.rest[0] = nn.Conv2d(repeat, 4, 3)
    network.rest[4].requires_grad_(False)
    before = weights_sha256(network)
    image = picture()
    data = image.data.copy()
    model = wrap(network, kind="classification", classes=["a", "b"], channels=["cxr"], rank=2,
                 repeat=repeat)  # fmt: skip
    once = explain(model, image, "all", "smoothgrad", compute=EXACT)
    again = explain(model, image, "all", "smoothgrad", compute=EXACT)
    np.testing.assert_array_equal(once["a"].values, again["a"].values)
    np.testing.assert_array_equal(image.data, data)
    assert weights_sha256(network) == before == model.info.sha256
    assert all(part.training for part in network.modules())
    assert all(p.grad is None for p in network.parameters())
    assert next(network.parameters()).dtype == torch.float32
    assert network(torch.zeros(2, 1 if repeat is None else repeat, 9, 9)).requires_grad


def test_several_cards_answer_for_one_image_irrespective_of_each_other(tmp_path: Path) -> None:
    folders = [
        write_card(tmp_path / "first", size=list(SIZE), intensity=STEPS, seed=1),
        write_card(tmp_path / "second", size=list(SIZE), intensity=STEPS, seed=2),
        write_card(tmp_path / "third", rank=2, seed=2),
    ]
    image = picture()

    def answers(order: list[int]) -> dict[int, Explanation]:
        models = {i: load_model(folders[i]) for i in order}
        return {i: explain(models[i], image, "class:pneumonia", "smoothgrad") for i in order}

    alone = {i: answers([i])[i] for i in range(3)}
    for together in (answers([0, 1, 2]), answers([2, 1, 0])):
        for i, found in together.items():
            np.testing.assert_array_equal(found["pneumonia"].values, alone[i]["pneumonia"].values)
            assert found.classes == alone[i].classes
            assert found["pneumonia"].grid == image.grid
    assert len({math.fsum(c.logit for c in found.classes) for found in alone.values()}) == 3


# -- pictures that do not fit -------------------------------------------------------------
def test_colour_for_grey_and_grey_for_colour(card: Any) -> None:
    with pytest.raises(ModelError, match=r"needs one grey channel \(cxr\).*colour.*convert"):
        card().prepare(picture(3, channels=tuple(RGB)))
    with pytest.raises(ModelError, match=r"needs a colour picture.*repeat: 3"):
        card(channels=RGB).prepare(picture())
    with pytest.raises(ModelError, match=r"needs 1 channel \(cxr\), the image has 2"):
        card().prepare(picture(2))


def test_one_slice_of_a_volume(card: Any) -> None:
    with pytest.raises(ModelError, match=r"one slice .*\(9, 8, 1\).* save it as a picture"):
        card().prepare(phantoms.volume(phantoms.oblique_grid((9, 8, 1))))
    with pytest.raises(ModelError, match="3D image for a 2D model"):
        card().prepare(phantoms.volume())


def test_another_number_of_classes(card: Any) -> None:
    with pytest.raises(ModelError, match=r"gives 4 classes, 3 are named \(normal, pneumonia"):
        card(network=densenet(2, 1, 4))
