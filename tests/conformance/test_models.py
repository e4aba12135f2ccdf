"""The conformance suite passes good models and catches every kind of bad one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.models import CardModel, Model, wrap
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.testing.conformance import check_model
from voxplain.testing.models import (
    Linear,
    Mirrored,
    Pooled,
    SmallNet,
    TrainingSensitive,
    Wrapper,
    analytic_modules,
    describe,
)

ABC = ["a", "b", "c"]
SHAPE, SPACING = (5, 7, 11), (0.7, 1.1, 2.3)
NAMES = tuple(analytic_modules())


def image(rank: int = 3, n_channels: int = 1) -> Volume:
    affine = np.diag([*SPACING[:rank], 1.0])
    affine[0, 1], affine[:rank, -1] = 0.1, (3, -8, 20)[:rank]
    grid = Grid(SHAPE[:rank], affine)
    data = np.random.default_rng(2).normal(100, 300, (n_channels, *grid.shape))
    return Volume(data.astype(np.float32), grid)


@pytest.mark.parametrize("rank", [2, 3])
@pytest.mark.parametrize("name", NAMES)
def test_analytic_models(name: str, rank: int) -> None:
    module = analytic_modules(rank, n_channels=2)[name]
    check_model(describe(module, rank=rank, n_channels=2), image(rank, 2))


@pytest.mark.parametrize(
    "settings",
    [
        {"orientation": "RAS", "spacing": (1.5, 1.5, 1.5), "intensity": ["zscore"]},
        {"orientation": "SPL", "spacing": (4.0, 0.9, 1.0), "intensity": [{"clip": [-200, 200]}]},
        {"orientation": "LIP", "intensity": ["percentiles", {"scale": {"from": [0, 1]}}]},
        {"size": (8, 6, 7), "orientation": "ASR"},
        {"window": None, "rank": 3},
    ],
)
def test_geometry_settings(settings: dict[str, Any]) -> None:
    model = wrap(SmallNet(), classes=ABC, channels=["ct"], **{"window": (4, 5, 6), **settings})
    check_model(model, image())


def test_classifier_and_float64() -> None:
    module = Pooled(SmallNet(2).double())
    model = wrap(module, classes=ABC, channels=["x"], kind="classification", size=(6, 9))
    check_model(model, image(2))


def test_an_ensemble_with_mirroring() -> None:
    nets = [SmallNet(3, 1, 3, seed=k) for k in range(2)]
    model = Mirrored(nets, (0, 2))
    assert model.n_views == 6
    check_model(model, image())


# -- bad models ---------------------------------------------------------------------------
class Faulty(CardModel):
    """A good model whose `prepare` goes through a fault."""

    def __init__(self, fault: Callable[[Volume, Volume], Volume]) -> None:
        good = describe(SmallNet())
        assert isinstance(good, CardModel)
        super().__init__(good.info, good.module, good.settings)
        self.fault = fault

    def prepare(self, image: Volume) -> Volume:
        return self.fault(image, super().prepare(image))


def mutates(image: Volume, prepared: Volume) -> Volume:
    copy = replace(prepared, data=prepared.data.copy())
    image.data[...] += 1
    return copy


def random(image: Volume, prepared: Volume) -> Volume:
    return prepared.with_data(prepared.data + np.random.default_rng().normal())


def flips(image: Volume, prepared: Volume) -> Volume:
    return prepared.with_data(prepared.data[:, ::-1])


def shifts(image: Volume, prepared: Volume) -> Volume:
    return prepared.with_data(np.roll(prepared.data, 1, axis=2))


def moves_the_grid(image: Volume, prepared: Volume) -> Volume:
    affine = prepared.grid.affine.copy()
    affine[0, -1] += 2
    return prepared.with_data(prepared.data, Grid(prepared.grid.shape, affine))


def adds_a_channel(image: Volume, prepared: Volume) -> Volume:
    return Volume(np.concatenate([prepared.data] * 2), prepared.grid)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (mutates, "prepare changes its argument"),
        (random, "prepare gives two results"),
        (flips, "a bright spot at"),
        (shifts, "a bright spot at"),
        (moves_the_grid, "a bright spot at"),
        (adds_a_channel, "prepare gives 2 channels, the model has 1"),
    ],
)
def test_faults_of_prepare(fault: Callable[[Volume, Volume], Volume], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_model(Faulty(fault), image())


class Straightens(CardModel):
    """Drops the tilt of oblique images."""

    def prepare(self, image: Volume) -> Volume:
        straight = Grid(image.grid.shape, np.diag([*image.grid.spacing, 1.0]))
        return image.with_data(image.data, straight)


def test_a_model_that_forgets_the_affine() -> None:
    good = describe(SmallNet())
    assert isinstance(good, CardModel)
    with pytest.raises(AssertionError, match="not parallel"):
        check_model(Straightens(good.info, good.module, good.settings), image())


class BatchStatistics(Wrapper):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return super().forward(F.batch_norm(windows, None, None, training=True))


class AlwaysDropout(Wrapper):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return super().forward(F.dropout(windows, training=True))


class Hooks(Wrapper):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.inner.register_forward_hook(lambda *_: None)
        return super().forward(windows)


class Counts(Wrapper):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.seen += 1
        return super().forward(windows)


class Freezes(Wrapper):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.requires_grad_(False)
        return super().forward(windows)


class StraightThrough(Wrapper):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return super().forward(windows + (windows.round() - windows).detach())


class NotANumber(Wrapper):
    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return super().forward(windows) * torch.nan


@pytest.mark.parametrize(
    ("wrapper", "sentence"),
    [
        (BatchStatistics, "depend on the rest of the batch"),
        (AlwaysDropout, "two results in evaluation mode"),
        (NotANumber, "NaN or infinite"),
        (Hooks, "the module's hooks changed"),
        (Counts, "the module's weights changed"),
        (Freezes, "the module's requires_grad flags changed"),
        (Pooled, "logits have shape"),
        (StraightThrough, "the gradient is not that of the logits"),
    ],
)
def test_faults_of_the_network(wrapper: type[Wrapper], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_model(describe(wrapper(SmallNet())), image())


def test_the_user_mode_is_kept() -> None:
    module = TrainingSensitive([[1.0]] * 3).train()
    check_model(describe(module), image())
    assert module.training


class Mislabels(CardModel):
    """A good model whose label image goes through a fault."""

    fault: Callable[[LabelMap], LabelMap]

    def label_image(self, logits: Any, grid: Grid, image: Volume) -> LabelMap:
        return self.fault(super().label_image(logits, grid, image))


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (lambda found: replace(found, layers=found.layers[..., ::-1]), "elsewhere in the label"),
        (lambda found: replace(found, layers=found.layers * 0), "elsewhere in the label"),
        (lambda found: replace(found, names={1: "x", 2: "y"}), "the label image names"),
        (lambda found: replace(found, grid=Grid(SHAPE, np.eye(4))), "the label image lies on"),
    ],
)
def test_faults_of_the_label_image(fault: Callable[[LabelMap], LabelMap], sentence: str) -> None:
    good = describe(SmallNet())
    assert isinstance(good, CardModel)
    bad = Mislabels(good.info, good.module, good.settings)
    bad.fault = fault
    with pytest.raises(AssertionError, match=sentence):
        check_model(bad, image())


def with_info(**changes: Any) -> Model:
    model = describe(Linear([[1.0]] * 3))
    model.info = replace(model.info, **changes)
    return model


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"class_names": ("a", "a", "b")}, "two classes have one name"),
        ({"class_names": ()}, "names no class"),
        ({"channel_names": ()}, "names no input channel"),
        ({"rank": 4}, "rank is 2 or 3"),
        ({"sha256": ""}, "64 hexadecimal"),
    ],
)
def test_faults_of_the_description(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(AssertionError, match=sentence):
        check_model(with_info(**changes), image())
