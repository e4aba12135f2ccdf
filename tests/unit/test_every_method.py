"""What holds for every method: passes as told, finite maps, the model as it was, kind and unit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import numpy as np
import pytest
import torch
from torch import nn

from voxplain.attribution import METHODS, PRESETS, ClassTarget, Mask, explain
from voxplain.attribution.ask import ask
from voxplain.attribution.method import ALL_CHANNELS, Method
from voxplain.errors import ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.records.attribution import Kind
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Failing, Mirrored, Recorder, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

CHEAP: dict[str, dict[str, Any]] = {
    "smoothgrad": {"n": 2},
    "smoothgrad_squared": {"n": 2},
    "vargrad": {"n": 2},
    "integrated_gradients": {"n": 3},
    "smooth_ig": {"n": 2, "points": 2},
    "smooth_ig_squared": {"n": 2, "points": 2},
    "expected_gradients": {"n": 4},
    "blur_ig": {"n": 3},
    "guided_ig": {"n": 3},
    "xrai": {"n": 2, "min_voxels": 1},
    "occlusion": {"size": 4},
    "rise": {"n": 10, "grid": 3},
    "gradient_quantile": {"n": 6},
    "gradient_max": {"n": 1, "voxels": 6},
}
"""Settings that keep a method cheap on a small image."""

WINDOW = WindowSettings((4, 8, 8), overlap=0.25, blend="gaussian")
GRID_3D = oblique_grid((5, 9, 12))
GRID_2D = oblique_grid((11, 14), (0.7, 1.1))


class Net(nn.Module):
    """Convolution, ReLU, pooling, and back to full size or to one value a class."""

    def __init__(self, rank: int, n_channels: int, n_classes: int, *, is_classifier: bool) -> None:
        super().__init__()
        convolution = nn.Conv3d if rank == 3 else nn.Conv2d
        self.first = convolution(n_channels, 5, 3, padding=1)
        self.act = nn.ReLU()
        self.pool = nn.AvgPool3d(2) if rank == 3 else nn.AvgPool2d(2)
        self.deep = convolution(5, 6, 3, padding=1)
        self.act_deep = nn.ReLU()
        self.last = convolution(11 if not is_classifier else 6, n_classes, 1)
        self.is_classifier = is_classifier
        rng = torch.Generator().manual_seed(7)
        for p in self.parameters():
            p.data = 0.4 * torch.randn(p.shape, generator=rng)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        shallow = self.act(self.first(x))
        deep = self.act_deep(self.deep(self.pool(shallow)))
        if self.is_classifier:
            return torch.as_tensor(self.last(deep)).flatten(2).mean(-1)
        up = nn.functional.interpolate(deep, size=x.shape[2:], mode="nearest")
        return torch.as_tensor(self.last(torch.cat([shallow, up], 1)))


def method(name: str) -> Method:
    return METHODS[name](**CHEAP.get(name, {}))


CASES = ["windows", "views", "padded", "classifier", "flat"]


def case(kind: str, wrapper: Any = Recorder) -> tuple[Model, Volume, list[ClassTarget], nn.Module]:
    """Model, image, targets (in the middle one an absent class) and the recording network."""
    if kind == "classifier":
        net = wrapper(Net(2, 2, 3, is_classifier=True))
        model = wrap(
            net, kind="classification", classes=("a", "b", "c"), channels=("x", "y"), rank=2,
            check=False,
        )  # fmt: skip
        return model, volume(GRID_2D, 2, seed=3), [ClassTarget("a"), ClassTarget("c")], net
    if kind == "flat":
        net = wrapper(Net(2, 1, 3, is_classifier=False))
        model = describe(net, rank=2, window=WindowSettings((8, 8), overlap=0.5))
        grid, image = GRID_2D, volume(GRID_2D, 1, seed=3)
    else:
        grid = oblique_grid((3, 9, 7)) if kind == "padded" else GRID_3D
        net = wrapper(Net(3, 2, 3, is_classifier=False))
        image = volume(grid, 2, seed=3)
        model = (
            Mirrored([net], axes=(0, 2), n_channels=2, window=WINDOW)
            if kind == "views"
            else describe(net, n_channels=2, window=WINDOW)
        )
    half = labels(grid, 2, seed=5)
    nobody = ClassTarget("class_2", Mask(LabelMap.of(np.ones(grid.shape, bool), grid)))
    return model, image, [ClassTarget("class_1", Mask(half, "organ_2")), nobody], net


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", METHODS)
def test_passes_told_are_run_and_maps_are_finite(name: str, kind: str) -> None:
    model, image, targets, net = case(kind)
    assert isinstance(net, Recorder)
    chosen = method(name)
    with open_pipeline(model, image, Compute("cpu", batch_size=2)) as pipeline:
        question = ask(pipeline, image, targets, None, seed=0)
        _ = question.regions, question.linear
        told = chosen.passes(question)
        before = pipeline.passes.n_forward, pipeline.passes.n_backward
        net.clear()
        seen: list[tuple[Any, torch.Tensor]] = []
        chosen.attribute(question, lambda box, values: seen.append((box, values.clone())))
        assert net.n_windows == told.n_forward
        assert pipeline.passes.n_forward - before[0] == told.n_forward
        assert pipeline.passes.n_backward - before[1] == told.n_backward
        n_channels = pipeline.image.n_channels if chosen.has_channels else 1
        count = torch.zeros(pipeline.plan.padded_shape)
        for box, values in seen:
            assert values.shape == (len(targets), n_channels, *box.shape)
            assert bool(torch.isfinite(values).all())
            count[box.slices] += 1
        assert int(count.max()) <= 1  # each voxel once
        assert any(bool(values.any()) for _, values in seen)


@pytest.mark.parametrize("name", METHODS)
def test_the_result_does_not_depend_on_the_batch(name: str) -> None:
    results = []
    for n in (1, 3):
        model, image, targets, _ = case("windows")
        results.append(
            explain(model, image, targets, method(name), compute=Compute("cpu", "float64", n))
        )
    for target in targets:
        one, two = (result[target.name].values for result in results)
        np.testing.assert_allclose(one, two, rtol=1e-6, atol=1e-9 * max(1e-9, np.abs(one).max()))


@pytest.mark.parametrize("name", METHODS)
def test_an_absent_class_beside_others(name: str) -> None:
    """A class without a voxel has a map of zeros and the finding VX103."""
    model, image, targets, _ = case("windows")
    empty = ClassTarget("class_1", label="nowhere")
    with open_pipeline(model, image, Compute("cpu")) as pipeline:
        predicted = pipeline.logits(pipeline.clean, pipeline.inner).argmax(0)
        absent = [k for k in range(3) if not (predicted == k).any()]
        if not absent:
            net = model.module.inner.last  # type: ignore[union-attr]
            net.bias.data[1] = -1e4
    result = explain(model, image, [targets[1], empty], method(name))
    assert ("VX103", "nowhere") in [(f.code, f.target) for f in result.findings]
    assert not result["nowhere"].values.any()
    assert result[targets[1].name].values.any()


def leaves(net: nn.Module) -> Iterator[Any]:
    """Everything that a caller could notice."""
    for name, m in net.named_modules():
        yield name, type(m), m.training
        yield [(k, list(v)) for k, v in vars(m).items() if k.endswith("_hooks")]
        yield "forward" in vars(m)
    for name, p in net.named_parameters():
        yield name, p.data_ptr(), p.requires_grad, p.grad is None, p.detach().sum().item()


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_unchanged(name: str) -> None:
    model, image, targets, net = case("windows")
    net.train()
    before = list(leaves(net))
    explain(model, image, targets, method(name))
    assert list(leaves(net)) == before


@pytest.mark.parametrize("name", METHODS)
def test_the_model_is_unchanged_after_an_error(name: str) -> None:
    """The network fails in its last forward pass."""
    model, image, targets, net = case("windows")
    assert isinstance(net, Recorder)
    explain(model, image, targets, method(name), compute=Compute("cpu", batch_size=1))
    n_passes = len(net.batches)
    model, image, targets, net = case("windows", lambda inner: Failing(inner, after=n_passes - 1))
    net.train()
    before = list(leaves(net))
    with pytest.raises(ModelError, match="on purpose"):
        explain(model, image, targets, method(name), compute=Compute("cpu", batch_size=1))
    assert list(leaves(net)) == before


@pytest.mark.parametrize("name", METHODS)
def test_kind_unit_and_channels_reach_the_result(name: str) -> None:
    model, image, targets, _ = case("windows")
    chosen = method(name)
    assert chosen.name == name
    assert chosen.kind in get_args(Kind)
    result = explain(model, image, targets, chosen)
    assert result.kind == chosen.kind
    kept = result[targets[0].name]
    assert kept.unit == chosen.unit.format("logit")
    wanted = ("channel_0", "channel_1") if chosen.has_channels else (ALL_CHANNELS,)
    assert kept.channels == wanted
    if chosen.kind != "contribution":
        assert all(target.gap is None for target in result.targets)


@pytest.mark.parametrize("name", METHODS)
def test_saved_and_loaded(name: str, tmp_path: Any) -> None:
    model, image, targets, _ = case("windows")
    result = explain(model, image, targets, method(name))
    result.save(tmp_path)
    loaded = Explanation.load(tmp_path, image=image)
    assert loaded.image.n_channels == 2
    assert loaded.method == name
    np.testing.assert_array_equal(loaded[targets[0].name].values, result[targets[0].name].values)
    if result.players is not None:
        assert loaded.players is not None
        assert loaded.players.frame.equals(result.players.frame)


def test_presets_are_methods() -> None:
    for name, preset in PRESETS.items():
        assert preset.name in METHODS, name
