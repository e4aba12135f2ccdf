"""Changed images and what is explained of them: mirrored, noisy, shifted, masks held."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from voxplain.assess.changed_images import (
    Change,
    Flip,
    Noise,
    Shift,
    all_changes,
    reexplained,
    stability_passes,
)
from voxplain.assess.flipped_model import FlippedModel
from voxplain.attribution import (
    ClassTarget,
    DeepLift,
    Everywhere,
    GradCam,
    Gradient,
    IntegratedGradients,
    Mask,
    Occlusion,
    Predicted,
    Rise,
    ScoreCam,
    SmoothGrad,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.maps import compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Linear, Mirrored, Pooled, Quadratic, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

GRID = oblique_grid((5, 7, 9))
WINDOW = WindowSettings((4, 5, 6), overlap=0.4, blend="gaussian")
REGIONS = labels(GRID, 2, seed=1)
TARGETS = [ClassTarget("class_1", Everywhere()), ClassTarget("class_2", Everywhere())]
HELD = [ClassTarget("class_1", Mask(REGIONS, "organ_1")), ClassTarget("class_2", Predicted())]


@contextmanager
def asked(model: Model, image: Volume, targets: Any = TARGETS, seed: int = 0, batch: int = 4
          ) -> Iterator[Question]:  # fmt: skip
    with open_pipeline(model, image, Compute("cpu", "float64", batch)) as pipeline:
        yield ask(pipeline, image, targets, regions=None, seed=seed)


def net3d(n_channels: int = 2) -> SmallNet:
    return SmallNet(3, n_channels, 3, seed=5)


class Relu(nn.Module):
    """A small network with a rectifier, for methods that look for one."""

    def __init__(self) -> None:
        super().__init__()
        inner = net3d()
        self.layers = nn.Sequential(inner.first, nn.ReLU(), inner.last)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.layers(windows))


def symmetric(net: SmallNet, axis: int) -> SmallNet:
    """Make a network that commutes with the mirror along an axis."""
    for layer in (net.first, net.last):
        layer.weight.data = (layer.weight.data + layer.weight.data.flip(2 + axis)) / 2
    return net


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("net", "method"),
    [
        (net3d(), Gradient()),
        (net3d(), IntegratedGradients(n=3)),
        (net3d(), Occlusion(size=3, stride=2)),
        (net3d(), GradCam(layers="first", relu=False)),
        (net3d(), ScoreCam(layers="first")),
        (Relu(), DeepLift()),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_a_flip_is_the_map_of_the_mirrored_image_mirrored_back(
    net: nn.Module, method: Method, axis: int
) -> None:
    """Through one window of the image's size, where the two are the same question."""
    model = describe(net, n_channels=2, window=GRID.shape)
    image = volume(GRID, 2, seed=3)
    mirrored = image.with_data(np.flip(image.data, 1 + axis).copy())
    with asked(model, image) as question:
        found = reexplained(question, method, Flip(axis)).values
        clean = compute_maps(question, method).values
    with asked(model, mirrored) as question:
        wanted = np.flip(compute_maps(question, method).values, 2 + axis)
    np.testing.assert_allclose(found, wanted, atol=1e-10 * np.abs(wanted).max())
    assert np.abs(found - clean).max() > 1e-3 * np.abs(clean).max()


@pytest.mark.parametrize("method", [Gradient(), SmoothGrad(n=2), GradCam(layers="first")])
@pytest.mark.parametrize("axis", [0, 2])
def test_an_equivariant_network_gives_the_identical_map(method: Method, axis: int) -> None:
    model = describe(symmetric(net3d(), axis), n_channels=2, window=WINDOW)
    with asked(model, volume(GRID, 2, seed=4), HELD) as question:
        clean = compute_maps(question, method)
        found = reexplained(question, method, Flip(axis))
        other = reexplained(question, method, Flip(1))
    np.testing.assert_allclose(found.values, clean.values, atol=1e-12)
    assert not np.allclose(other.values, clean.values, atol=1e-6)


@pytest.mark.parametrize("method", [Gradient(), GradCam(layers="first", relu=False)])
def test_views_of_a_mirrored_model_change_places(method: Method) -> None:
    """The mean over both views commutes with the mirror, whatever the network is."""
    model = Mirrored([net3d(), SmallNet(3, 2, 3, seed=6)], axes=(1,), n_channels=2, window=WINDOW)
    flipped = FlippedModel(model, 1)
    assert [flipped.flips(v) for v in range(4)] == [(1,), (), (1,), ()]
    assert FlippedModel(model, 0).flips(1) == (0, 1)
    with asked(model, volume(GRID, 2, seed=4)) as question:
        clean = compute_maps(question, method)
        found = reexplained(question, method, Flip(1))
    np.testing.assert_allclose(found.values, clean.values, atol=1e-12)


def test_a_classifier_sees_the_mirror_image() -> None:
    grid = oblique_grid((6, 9), (0.7, 1.1))
    image = volume(grid, 1, seed=2)
    net = Pooled(SmallNet(2, 1, 3, seed=3))
    model = wrap(net, kind="classification", classes=("a", "b", "c"), channels=["c"], rank=2,
                 check=False)  # fmt: skip
    targets = [ClassTarget("a"), ClassTarget("c")]
    mirrored = image.with_data(np.flip(image.data, 2).copy())
    with asked(model, image, targets) as question:
        found = reexplained(question, Gradient(), Flip(1)).values
        assert [c.text for c in all_changes(question, Noise(), Shift())[2:]] == [
            Flip(0).text,
            Flip(1).text,
        ]
    with asked(model, mirrored, targets) as question:
        wanted = np.flip(compute_maps(question, Gradient()).values, 3)
    np.testing.assert_allclose(found, wanted, atol=1e-12)


@pytest.mark.parametrize("change", [Noise(0.3, n=2), Shift(-0.7)])
def test_masks_are_those_of_the_clean_image(change: Change) -> None:
    """Quadratic: the gradient is 2·W·x' on the clean image's mask, here one that x' would move."""
    W = np.array([[0.2, 0.1], [1.0, -0.5], [-0.4, 0.8]])
    model = describe(Quadratic(W), n_channels=2, window=WINDOW)
    image = volume(GRID, 2, seed=4)
    with asked(model, image, [ClassTarget("class_1", Predicted())]) as question:
        mask = question.predicted_mask(1).numpy()
        for k in range(change.n_copies):
            pipeline = change.changed(question, k)
            x = pipeline.image.data.astype(np.float64)
            there = ask(pipeline, image, [ClassTarget("class_1", Predicted())], None, 0)
            assert not np.array_equal(there.predicted_mask(1).numpy(), mask)
            found = reexplained(question, Gradient(), change, k).values[0]
            wanted = 2 * W[1].reshape(-1, 1, 1, 1) * x * mask
            np.testing.assert_allclose(found, wanted, atol=1e-12)


def test_noise_is_uniform_apart_and_known_by_case_and_copy() -> None:
    grid = oblique_grid((12, 15, 21))
    image = volume(grid, 2, seed=1)
    model = describe(Linear(np.eye(3, 2)), n_channels=2)
    noise = Noise(0.2, n=3)

    def draws(seed: int) -> np.ndarray[Any, Any]:
        with asked(model, image, seed=seed) as question:
            order = (2, 0, 1)
            found = {k: noise.changed(question, k).image.data for k in order}
            assert found[0].dtype == image.data.dtype
            return np.stack([found[k] - image.data for k in range(3)])

    found = draws(0)
    assert np.abs(found).max() <= 0.2 + 1e-6
    assert np.array_equal(found, draws(0))
    assert not np.allclose(found, draws(1))
    flat = found.reshape(6, -1)  # copies and channels
    n = flat.shape[1]
    # 5 standard errors of mean, variance and correlation of uniform draws
    assert np.abs(flat.mean(1)).max() < 5 * 0.2 / np.sqrt(3 * n)
    np.testing.assert_allclose(flat.var(1), 0.2**2 / 3, rtol=5 * np.sqrt(0.8 / n))
    assert np.abs(np.corrcoef(flat) - np.eye(6)).max() < 5 / np.sqrt(n)


def test_padding_stays() -> None:
    grid = oblique_grid((3, 4, 5))
    image = volume(grid, 1, seed=1)
    window = WindowSettings((5, 5, 6), pad_value=-2.0)
    with asked(describe(Linear(np.eye(3, 1)), window=window), image) as question:
        plan = question.pipeline.plan
        for change in (Noise(n=1), Shift(0.5)):
            padded = change.changed(question, 0).clean(plan.box(0)).numpy()
            clean = question.pipeline.clean(plan.box(0)).numpy()
            inside = np.zeros(clean.shape, bool)
            inside[(slice(None), *plan.inner().slices)] = True
            assert (padded[~inside] == -2.0).all()
            assert (padded[inside] != clean[inside]).all()


def test_draws_of_the_method_are_held_unless_asked_anew() -> None:
    model = describe(net3d(), n_channels=2, window=WINDOW)
    method = SmoothGrad(n=2, noise=0.3)
    with asked(model, volume(GRID, 2, seed=4)) as question:
        tiny = Noise(1e-5, n=2)
        clean = compute_maps(question, method).values
        scale = np.abs(clean).max()
        held = reexplained(question, method, tiny, 1).values
        fresh = reexplained(question, method, tiny, 1, fresh_draws=True).values
        again = reexplained(question, method, tiny, 1, fresh_draws=True).values
        plain = reexplained(question, Gradient(), tiny, 1).values
        plain_fresh = reexplained(question, Gradient(), tiny, 1, fresh_draws=True).values
    assert np.abs(held - clean).max() < 1e-3 * scale
    assert np.abs(fresh - clean).max() > 1e-2 * scale
    assert np.array_equal(fresh, again)
    assert np.array_equal(plain, plain_fresh)


@pytest.mark.parametrize(
    "method",
    [
        Gradient(),
        SmoothGrad(n=2),
        IntegratedGradients(n=2),
        Occlusion(size=4, stride=3),
        GradCam(layers="first"),
        GradCam(),
        Rise(n=6),
    ],
    ids=lambda method: method.name,
)
@pytest.mark.parametrize("targets", ["everywhere", "apart", "probability"])
def test_passes_are_known_before(method: Method, targets: str) -> None:
    model = Mirrored([net3d()], axes=(1,), n_channels=2, window=WINDOW)
    wanted = {
        "everywhere": TARGETS,
        "apart": [ClassTarget("class_1", Mask(REGIONS, f"organ_{i}")) for i in (1, 2)],
        "probability": [ClassTarget("class_1", Mask(REGIONS, "organ_2"), score="probability")],
    }[targets]
    with asked(model, volume(GRID, 2, seed=4), wanted) as question:
        _ = question.regions, question.linear
        changes: list[Change] = [Noise(n=2), Shift(), Flip(2)]
        promised = stability_passes(question, method, changes)
        before = question.pipeline.passes.n_forward, question.pipeline.passes.n_backward
        for change in changes:
            for k in range(change.n_copies):
                reexplained(question, method, change, k)
        passes = question.pipeline.passes
        assert passes.n_forward - before[0] == promised.n_forward
        assert passes.n_backward - before[1] == promised.n_backward


def test_what_cannot_be_done_is_said() -> None:
    with pytest.raises(MethodError, match="radius is a positive"):
        Noise(0.0)
    with pytest.raises(MethodError, match="at least 1 noisy copy"):
        Noise(n=0)
    with pytest.raises(MethodError, match="other than 0"):
        Shift(0.0)
    with pytest.raises(MethodError, match="at least 0"):
        Flip(-1)
    model = describe(net3d(), n_channels=2, window=(1, 5, 6))
    with asked(model, volume(GRID, 2, seed=4)) as question:
        assert all_changes(question, Noise(), Shift()) == (Noise(), Shift(), Flip(1), Flip(2))
        for axis in (0, 3):
            with pytest.raises(MethodError, match=f"along axis {axis}; take one of 1, 2"):
                reexplained(question, Gradient(), Flip(axis))
        with pytest.raises(MethodError, match="noise has copies 0 to 2, got 3"):
            reexplained(question, Gradient(), Noise(), 3)
