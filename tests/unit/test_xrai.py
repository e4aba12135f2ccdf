"""XRAI on models whose integrated gradients are known, through windows."""

from __future__ import annotations

import re
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from voxplain.attribution import (
    ClassTarget,
    Constant,
    Difference,
    Everywhere,
    FunctionTarget,
    IntegratedGradients,
    Mask,
    explain,
)
from voxplain.attribution.ask import ask
from voxplain.attribution.targets import Target
from voxplain.attribution.xrai import XRAI
from voxplain.errors import MethodError, ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, wrap
from voxplain.records import Explanation
from voxplain.regions.segments import Segments, most_telling_first, multi_scale
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import (
    Failing,
    Linear,
    Mirrored,
    Pooled,
    Quadratic,
    Recorder,
    SmallNet,
    describe,
)
from voxplain.testing.phantoms import labels, oblique_grid, volume

FLOAT64 = Compute("cpu", precision="float64", batch_size=4)
W = np.array([[1.0, -2.0], [0.5, 3.0], [-0.75, 1.5]])
SHAPES = [(5, 7, 11), (9, 12)]
FEW = XRAI(n=2, min_voxels=3)


def image_of(shape: tuple[int, ...], n_channels: int = 2, seed: int = 1) -> Volume:
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
    image = volume(grid, n_channels, seed)
    factors = np.array([1.0, 40.0, 3.0])[:n_channels].reshape(-1, *[1] * len(shape))
    return image.with_data(image.data.astype(np.float64) * factors - factors)


def mask_of(image: Volume, share: float = 0.5) -> NDArray[np.bool_]:
    return np.asarray(np.random.default_rng(8).random(image.grid.shape) < share)


def target_on(mask: NDArray[np.bool_], image: Volume, name: str = "class_1") -> ClassTarget:
    return ClassTarget(name, Mask(LabelMap.of(mask, image.grid), name="m"))


def window(rank: int, pad_value: float = 0.3) -> WindowSettings:
    return WindowSettings((4, 5, 6)[:rank], overlap=0.4, blend="gaussian", pad_value=pad_value)


def run(model: Model, image: Volume, targets: Any, method: XRAI | IntegratedGradients,
        compute: Compute = FLOAT64) -> Explanation:  # fmt: skip
    return explain(model, image, targets, method, compute=compute)


def levels_of(image: Volume, extremes: str) -> tuple[NDArray[Any], NDArray[Any]]:
    axes = None if extremes == "image" else tuple(range(1, image.data.ndim))
    one = np.ones((image.n_channels, *[1] * (image.data.ndim - 1)))
    lowest = image.data.min(axes, keepdims=True) * one
    return lowest, image.data.max(axes, keepdims=True) * one


@pytest.fixture(autouse=True)
def small_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of pictures are sought on 64 x 64 pixels, to save time."""
    monkeypatch.setattr("voxplain.regions.segments.SIDE", 64)


@cache
def segments_of(image: Volume, extremes: str) -> Segments:
    lowest, highest = levels_of(image, extremes)
    scaled = 2 * (image.data - lowest) / (highest - lowest) - 1
    return multi_scale(scaled, image.grid.spacing)


def expected(pixels: NDArray[np.float64], image: Volume, method: XRAI) -> NDArray[np.float64]:
    """Map (1, *shape) of a known a(v)."""
    segments = segments_of(image, method.extremes)
    return most_telling_first(segments, pixels, method.area, method.min_voxels)[None]


def close(found: NDArray[Any], wanted: NDArray[Any]) -> None:
    assert found.shape == wanted.shape
    assert np.ptp(wanted) > 0
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * np.abs(wanted).max())


# -- closed forms ---------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "method",
    [FEW, XRAI(n=1, min_voxels=5, extremes="image"), XRAI(n=3, rule="agg2exp", area=0.3)],
)
def test_linear(shape: tuple[int, ...], method: XRAI) -> None:
    """A linear model's is w·(x − mean of black and white) on the target's mask."""
    image = image_of(shape)
    mask = mask_of(image)
    model = describe(Linear(W), rank=len(shape), n_channels=2, window=window(len(shape)))
    result = run(model, image, target_on(mask, image), method)
    lowest, highest = levels_of(image, method.extremes)
    weights = W[1].reshape(-1, *[1] * len(shape))
    pixels = (weights * (image.data - (lowest + highest) / 2)).max(0) * mask
    (attribution,) = result.attributions.values()
    close(attribution.values, expected(pixels, image, method))
    assert attribution.values.min() < 0 or method.area < 1
    assert attribution.kind == "localisation"
    assert attribution.channels == ("all channels",)
    assert attribution.unit == "logit"
    assert attribution.values.sum() == pytest.approx(pixels.sum())


@pytest.mark.parametrize("shape", SHAPES)
def test_quadratic_is_exact_with_two_points(shape: tuple[int, ...]) -> None:
    image = image_of(shape)
    model = describe(Quadratic(W), rank=len(shape), n_channels=2, window=window(len(shape)))
    target = ClassTarget("class_1", Everywhere())
    lowest, highest = levels_of(image, "channel")
    weights = W[1].reshape(-1, *[1] * len(shape))
    start = IntegratedGradients(n=2, baseline=Constant(0.0))
    from_zero = run(model, image, target, start)["class_1@everywhere"].values
    factors = from_zero / (weights * image.data**2)  # of w·x² in the network's formula
    factor = factors.flat[0]
    np.testing.assert_allclose(factors, factor, rtol=1e-9)
    pixels = (factor * weights * (image.data**2 - (lowest**2 + highest**2) / 2)).max(0)
    close(run(model, image, target, FEW)["class_1@everywhere"].values,
          expected(pixels, image, FEW))  # fmt: skip


def whole_function() -> FunctionTarget:
    return FunctionTarget(lambda logits: (logits[1] * logits[0].cos()).sum(), "f")


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["plain", "views", "padded", "one channel"])
def test_from_integrated_gradients(shape: tuple[int, ...], kind: str) -> None:
    """The mean of two integrated gradients, for targets linear and not, several at once."""
    rank, n_channels = len(shape), 1 if kind == "one channel" else 2
    image = image_of(shape, n_channels)
    method = XRAI(n=2, extremes="image", min_voxels=4)
    if kind == "views":
        nets = [SmallNet(rank, 2, 3, seed=k) for k in range(2)]
        model: Model = Mirrored(nets, (0, rank - 1), rank=rank, n_channels=2, window=window(rank))
    else:
        size = WindowSettings((6, 16, 8)[:rank], pad_value=0.3) if kind == "padded" else None
        net = SmallNet(rank, n_channels, 3, seed=4)
        model = describe(net, rank=rank, n_channels=n_channels, window=size or window(rank))
    mask = mask_of(image, 0.2)
    probability = ClassTarget("class_2", Everywhere(), "probability")
    first = target_on(mask, image)
    targets: list[Target] = [first, probability, Difference(first, probability), whole_function()]
    targets.append(ClassTarget("class_1", Mask(LabelMap.of(mask, image.grid), name="d"),
                               reduction="dice"))  # fmt: skip
    found = run(model, image, targets, method)
    parts = [
        run(model, image, targets, IntegratedGradients(n=2, baseline=Constant(float(value))))
        for value in (image.data.min(), image.data.max())
    ]
    for target in targets:
        a = np.mean([part[target.name].values for part in parts], axis=0)
        close(found[target.name].values, expected(a.max(0), image, method))


@pytest.mark.parametrize("score", ["logit", "probability", "margin"])
def test_classification(score: Any) -> None:
    image = image_of((17, 12))
    model = wrap(Pooled(SmallNet(2, 2, 3, seed=3)), classes=["a", "b", "c"], channels=["u", "v"],
                 kind="classification", rank=2, check=False)  # fmt: skip
    method = XRAI(n=3, extremes="image", min_voxels=4)
    targets = [ClassTarget("b", score=score), ClassTarget("c", score=score)]
    found = run(model, image, targets, method)
    parts = [
        run(model, image, targets, IntegratedGradients(n=3, baseline=Constant(float(value))))
        for value in (image.data.min(), image.data.max())
    ]
    for target in targets:
        a = np.mean([part[target.name].values for part in parts], axis=0)
        close(found[target.name].values, expected(a.max(0), image, method))


def test_an_absent_class_has_an_empty_map() -> None:
    image = image_of((5, 7, 11))
    model = describe(Linear(W, [0.0, -1e6, 0.0]), n_channels=2, window=window(3))
    for targets in (["class:class_1"], ["class:class_1", "class:class_2"]):
        result = run(model, image, targets, FEW)
        assert not result["class_1"].values.any()
    close(result["class_2"].values, run(model, image, "class:class_2", FEW)["class_2"].values)


def test_targets_and_batches_do_not_change_each_other() -> None:
    image = image_of((5, 7, 11))
    model = describe(SmallNet(3, 2, 3), n_channels=2, window=window(3))
    targets = [target_on(mask_of(image), image, name) for name in ("class_1", "class_2")]
    both = run(model, image, targets, FEW)
    for target in targets:
        alone = run(model, image, target, FEW, Compute("cpu", precision="float64", batch_size=1))
        close(alone[target.name].values, both[target.name].values)


def test_a_constant_image_has_no_contributions() -> None:
    image = image_of((5, 7, 11))
    image = image.with_data(np.full_like(image.data, 2.0))
    model = describe(Linear(W), n_channels=2, window=window(3))
    result = run(model, image, ClassTarget("class_1", Everywhere()), FEW)
    assert not result["class_1@everywhere"].values.any()


def test_single_precision() -> None:
    image = image_of((17, 12))
    image = image.with_data(image.data.astype(np.float32))
    model = describe(SmallNet(2, 2, 3), rank=2, n_channels=2, window=window(2))
    target = ClassTarget("class_1", Everywhere())
    found = run(model, image, target, FEW, Compute("cpu"))["class_1@everywhere"].values
    wanted = run(model, image, target, FEW)["class_1@everywhere"].values
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(), wanted.sum(), rtol=1e-4)


# -- passes ---------------------------------------------------------------------------------
class Counting(Recorder):
    """Records forward windows, counts backward ones."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__(inner)
        self.n_backward = 0

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        if windows.requires_grad:
            windows = windows.clone()
            windows.register_hook(self._count)  # type: ignore[no-untyped-call]
        return super().forward(windows)

    def _count(self, gradient: torch.Tensor) -> None:
        self.n_backward += len(gradient)


@pytest.mark.parametrize("n_views", [1, 2])
@pytest.mark.parametrize(
    "names", [["fixed"], ["absent"], ["moving"], ["function"], ["fixed", "absent", "moving"]]
)
def test_passes_are_those_told(names: list[str], n_views: int) -> None:
    image = image_of((5, 9, 13), n_channels=1)
    net = Counting(Linear([[1.0], [-0.5], [2.0]], [0.0, 0.0, -1e6]))
    settings = {"n_classes": 3, "window": window(3)}
    model: Model = (
        describe(net, **settings) if n_views == 1 else Mirrored([net], (1,), **settings)  # type: ignore[arg-type]
    )
    corner = np.zeros(image.grid.shape, bool)
    corner[:1, 7:, 11:] = True
    where = Mask(LabelMap.of(corner, image.grid), name="lesion")
    known: dict[str, Target] = {
        "fixed": ClassTarget("class_1", where),
        "absent": ClassTarget("class_2"),
        "moving": ClassTarget("class_1", where, score="probability"),
        "function": whole_function(),
    }
    targets = [known[name] for name in names]
    one = Compute("cpu", batch_size=1)
    regions = labels(image.grid)
    method = XRAI(n=3)
    with open_pipeline(model, image, one) as pipeline:
        question = ask(pipeline, image, targets, regions, seed=0)
        _ = question.regions, question.linear
        clean = pipeline.passes.n_forward
        told = method.passes(question)
        assert pipeline.passes.n_forward == clean  # telling runs nothing
    net.clear()
    net.n_backward = 0
    result = explain(model, image, targets, method, regions=regions, compute=one)
    assert net.n_windows == result.provenance.cost.n_forward == clean + told.n_forward
    assert net.n_backward == result.provenance.cost.n_backward == told.n_backward
    assert (told.n_backward == 0) == (names == ["absent"])


# -- the model ------------------------------------------------------------------------------
@pytest.mark.parametrize("after", [None, 0, 9, 12])
def test_the_model_is_unchanged(after: int | None) -> None:
    image = image_of((5, 7, 11))
    net = SmallNet(3, 2, 3).train()
    before = {name: p.detach().clone() for name, p in net.state_dict().items()}
    target = ClassTarget("class_1", Everywhere())
    if after is None:
        run(describe(net, n_channels=2, window=window(3)), image, target, FEW)
    else:
        failing = describe(Failing(net, after), n_channels=2, window=window(3))
        with pytest.raises(ModelError, match="fails on purpose"):
            run(failing, image, target, FEW)
    assert net.training
    assert all(p.requires_grad and p.grad is None for p in net.parameters())
    assert all(torch.equal(p, before[name]) for name, p in net.state_dict().items())
    assert all(p.dtype == torch.float32 for p in net.parameters())


# -- settings -------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n": 0}, "n is at least 1 point on each path, got 0"),
        ({"rule": "simpson"}, "rule is one of gauss_legendre, midpoint, agg2exp; got 'simpson'"),
        ({"extremes": "both"}, "extremes is channel or image, got 'both'"),
        ({"area": 1.5}, "area is a share of the image, 0 <= area <= 1; got 1.5"),
        ({"area": float("nan")}, "area is a share of the image, 0 <= area <= 1; got nan"),
        ({"min_voxels": 0}, "min_voxels is at least 1, got 0"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(MethodError, match=re.escape(message)):
        XRAI(**settings)
