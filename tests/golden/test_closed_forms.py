"""Attributions of networks for which they can be written down, through many windows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray
from torch import nn

from voxplain.attribution import (
    Blurred,
    ClassTarget,
    Everywhere,
    GivenImage,
    Gradient,
    InputXGradient,
    IntegratedGradients,
    Mask,
    MeanImage,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
    explain,
)
from voxplain.attribution import Constant as ConstantBaseline
from voxplain.attribution.baselines import Baseline
from voxplain.attribution.method import Method
from voxplain.errors import ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.records import Explanation
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings
from voxplain.testing.models import (
    BoxFilter,
    Constant,
    InPlaceNet,
    Linear,
    Product,
    Quadratic,
    Shortcut,
    Step,
    TrainingSensitive,
    describe,
)
from voxplain.testing.phantoms import oblique_grid, volume

SHAPE = (5, 7, 11)
WINDOW = WindowSettings((4, 5, 6), overlap=0.4, blend="gaussian")
W = np.array([[1.0, -2.0], [0.5, 3.0], [0.25, 1.5]])
w = W[:, 1]
K = 1  # the class explained
SEED = 7
METHODS: list[Method] = [
    Gradient(),
    InputXGradient(),
    SmoothGrad(n=4),
    SmoothGradSquared(n=4),
    VarGrad(n=4),
    IntegratedGradients(n=3),
]


@pytest.fixture
def grid() -> Grid:
    return oblique_grid(SHAPE)


@pytest.fixture
def image(grid: Grid) -> Volume:
    made = volume(grid, n_channels=2, seed=4)
    return made.with_data(made.data.astype(np.float64))


@pytest.fixture
def x(image: Volume) -> NDArray[np.float64]:
    return image.data.astype(np.float64)


@pytest.fixture
def mask(grid: Grid) -> NDArray[np.bool_]:
    return np.random.default_rng(1).random(grid.shape) < 0.3


def explained(
    net: nn.Module,
    image: Volume,
    method: Method,
    mask: NDArray[np.bool_] | None = None,
    window: WindowSettings = WINDOW,
) -> Explanation:
    where = Everywhere() if mask is None else Mask(LabelMap.of(mask, image.grid))
    model = describe(net, n_channels=2, n_classes=3, window=window)
    return explain(
        model, image, ClassTarget("class_1", where), method, seed=SEED,
        compute=Compute("cpu", precision="float64", batch_size=2),
    )  # fmt: skip


def map_of(result: Explanation) -> NDArray[np.floating]:
    (attribution,) = result.attributions.values()
    return attribution.values


def per_channel(factors: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(factors, np.float64).reshape(-1, 1, 1, 1)


def noise_of(image: Volume, draws: int, noise: float) -> NDArray[np.float64]:
    """The noise of each copy, (draws, channels, *shape)."""
    field = NoiseField(SEED, case=int(image.sha256()[:16], 16))
    sigma = noise * np.ptp(image.data, axis=(1, 2, 3), keepdims=True)
    box = Box.whole(image.grid.shape)
    return np.stack([sigma * field.crop(i, image.n_channels, box) for i in range(draws)])


def close(found: NDArray[np.floating], wanted: NDArray[np.floating]) -> None:
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-10 * max(1, np.abs(wanted).max()))


# -- gradients ------------------------------------------------------------------------------
def test_linear(image: Volume, mask: NDArray[np.bool_]) -> None:
    close(map_of(explained(Linear(W), image, Gradient(), mask)), per_channel(W[K]) * mask)


def test_linear_is_its_own_noisy_and_integrated_gradient(
    image: Volume, mask: NDArray[np.bool_], x: NDArray[np.float64]
) -> None:
    wanted = per_channel(W[K]) * mask
    close(map_of(explained(Linear(W, [1, 2, 3]), image, SmoothGrad(n=3), mask)), wanted)
    close(map_of(explained(Linear(W), image, SmoothGradSquared(n=3), mask)), wanted**2)
    assert not map_of(explained(Linear(W), image, VarGrad(n=3), mask)).any()
    for method in (InputXGradient(), IntegratedGradients(n=2)):
        result = explained(Linear(W, [1, 2, 3]), image, method, mask)
        close(map_of(result), wanted * x)
        assert result.targets[0].gap == pytest.approx(0, abs=1e-10)


def test_training_sensitive_is_explained_in_evaluation_mode(image: Volume) -> None:
    net = TrainingSensitive(W).train()
    wanted = W[K] / np.sqrt(np.array([2.0, 2.5]) + 1e-5)
    found = map_of(explained(net, image, Gradient()))
    # the running statistics are float32 in the network
    np.testing.assert_allclose(found, np.broadcast_to(per_channel(wanted), found.shape), rtol=1e-6)


def test_in_place(image: Volume, x: NDArray[np.float64]) -> None:
    moved = image.with_data(x - x.mean())
    close(map_of(explained(InPlaceNet(w), moved, Gradient())), w[K] * (moved.data > 0))


def shares(shape: tuple[int, ...]) -> list[tuple[Box, NDArray[np.float64]]]:
    plan = WindowPlan(shape, WINDOW)
    boxes = [plan.box(i) for i in range(len(plan))]
    return [(box, plan.weight / plan.normaliser(box)) for box in boxes]


def test_box_filter_sees_the_windows(image: Volume, mask: NDArray[np.bool_]) -> None:
    before, after = (1, 0, 2), (0, 2, 1)
    wanted = np.zeros((2, *SHAPE))
    for box, share in shares(SHAPE):
        cotangent = mask[box.slices] * share
        for offset in product(*[range(-b, a + 1) for b, a in zip(before, after, strict=True)]):
            for v in np.argwhere(cotangent):
                u = v + offset
                if (u >= 0).all() and (u < box.shape).all():
                    wanted[(slice(None), *(u + box.start))] += w[K] * cotangent[tuple(v)]
    close(map_of(explained(BoxFilter(w, before, after), image, Gradient(), mask)), wanted)


def test_shortcut_sees_the_windows(image: Volume, mask: NDArray[np.bool_]) -> None:
    wanted = np.zeros((2, *SHAPE))
    for box, share in shares(SHAPE):
        corner = tuple(b - 1 for b in box.stop)
        wanted[(0, *corner)] += w[K] * (mask[box.slices] * share).sum()
    found = map_of(explained(Shortcut(w), image, Gradient(), mask))
    close(found, wanted)
    assert np.count_nonzero(found) <= len(shares(SHAPE))


# -- zero everywhere ------------------------------------------------------------------------
@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("net", [Constant(w), Step(w, threshold=1.0)], ids=["constant", "step"])
def test_zero_gradient_is_said(image: Volume, net: nn.Module, method: Method) -> None:
    result = explained(net, image, method)
    assert not map_of(result).any()
    assert "VX104" in {finding.code for finding in result.findings}
    assert result.table.frame["share"].isna().all()


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_logits_without_a_path_to_the_input_are_refused(image: Volume, method: Method) -> None:
    with pytest.raises(ModelError, match="do not depend on the input"):
        explained(Constant(w, is_connected=False), image, method)


# -- quadratic: everything is known ---------------------------------------------------------
def test_quadratic_gradient(image: Volume, mask: NDArray[np.bool_], x: NDArray[np.float64]) -> None:
    close(
        map_of(explained(Quadratic(W), image, Gradient(), mask)), 2 * x * per_channel(W[K]) * mask
    )


def test_quadratic_integrated_with_one_gauss_point_is_exact(
    image: Volume, mask: NDArray[np.bool_], x: NDArray[np.float64]
) -> None:
    result = explained(Quadratic(W), image, IntegratedGradients(n=1), mask)
    close(map_of(result), x**2 * per_channel(W[K]) * mask)
    assert result.targets[0].gap == pytest.approx(0, abs=1e-9)
    assert result.targets[0].score == pytest.approx(map_of(result).sum(), rel=1e-10)


def test_quadratic_integrated_from_any_baseline(
    image: Volume, x: NDArray[np.float64], mask: NDArray[np.bool_], grid: Grid
) -> None:
    from scipy.ndimage import gaussian_filter

    other = image.with_data(np.random.default_rng(3).normal(size=x.shape))
    sigma = [2.0 / s for s in grid.spacing]
    baselines: list[tuple[Baseline, NDArray[np.floating]]] = [
        (ConstantBaseline(0.75), np.full_like(x, 0.75)),
        (MeanImage(), np.broadcast_to(x.mean((1, 2, 3), keepdims=True), x.shape)),
        (Blurred(2.0), np.stack([gaussian_filter(c, sigma, mode="nearest") for c in x])),
        (GivenImage(other), other.data),
    ]
    for baseline, b in baselines:
        # (x - b) ∫ 2 W (b + α(x - b)) dα = W (x² - b²)
        result = explained(Quadratic(W), image, IntegratedGradients(n=2, baseline=baseline), mask)
        close(map_of(result), (x**2 - b**2) * per_channel(W[K]) * mask)
        assert result.targets[0].gap == pytest.approx(0, abs=1e-9)
        first_order = explained(Quadratic(W), image, InputXGradient(baseline=baseline), mask)
        wanted = (x - b) * 2 * x * per_channel(W[K]) * mask
        close(map_of(first_order), wanted)
        change = ((x**2 - b**2) * per_channel(W[K]) * mask).sum()
        assert first_order.targets[0].gap == pytest.approx(wanted.sum() - change, rel=1e-9)


def test_quadratic_smoothgrad(image: Volume, x: NDArray[np.float64]) -> None:
    mean = x + noise_of(image, 5, 0.3).mean(0)
    found = map_of(explained(Quadratic(W), image, SmoothGrad(n=5, noise=0.3)))
    close(found, 2 * mean * per_channel(W[K]))
    assert np.abs(found - 2 * x * per_channel(W[K])).max() > 0.1


def test_quadratic_squared_and_variance(image: Volume, x: NDArray[np.float64]) -> None:
    copies = 2 * (x + noise_of(image, 5, 0.3)) * per_channel(W[K])
    squared = map_of(explained(Quadratic(W), image, SmoothGradSquared(n=5, noise=0.3)))
    close(squared, (copies**2).mean(0))
    variance = map_of(explained(Quadratic(W), image, VarGrad(n=5, noise=0.3)))
    close(variance, copies.var(0))
    assert (variance >= 0).all()


def test_antithetic_pairs_of_a_quadratic_are_exact(image: Volume, x: NDArray[np.float64]) -> None:
    found = map_of(explained(Quadratic(W), image, SmoothGrad(n=2, noise=0.9, antithetic=True)))
    close(found, 2 * x * per_channel(W[K]))


@pytest.mark.parametrize("size", [(4, 5, 6), (5, 7, 11), (9, 8, 14)])
def test_noise_belongs_to_the_image_not_to_windows_or_padding(
    image: Volume, x: NDArray[np.float64], size: tuple[int, ...]
) -> None:
    window = WindowSettings(size, blend="constant", pad_value=0.5)
    found = map_of(explained(Quadratic(W), image, SmoothGrad(n=2, noise=0.3), window=window))
    close(found, 2 * (x + noise_of(image, 2, 0.3).mean(0)) * per_channel(W[K]))


# -- product: symmetry ----------------------------------------------------------------------
def test_product_is_shared_equally(
    image: Volume, mask: NDArray[np.bool_], x: NDArray[np.float64]
) -> None:
    gradient = map_of(explained(Product(w), image, Gradient(), mask))
    close(gradient, w[K] * x[::-1] * mask)
    integrated = map_of(explained(Product(w), image, IntegratedGradients(n=1), mask))
    half = w[K] * x[0] * x[1] * mask / 2
    close(integrated, np.stack([half, half]))
