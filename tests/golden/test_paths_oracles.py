"""captum and the authors' programs (PAIR saliency) agree on a single window."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import captum.attr
import numpy as np
import pytest
import saliency.core
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxplain.attribution import (
    Blurred,
    ClassTarget,
    Constant,
    Everywhere,
    GivenImage,
    IntegratedGradients,
    MeanImage,
    explain,
)
from voxplain.attribution.baselines import Baseline
from voxplain.attribution.blur_ig import BlurIG, Spacing
from voxplain.attribution.expected import ExpectedGradients
from voxplain.attribution.guided_ig import GuidedIG
from voxplain.attribution.method import Method
from voxplain.attribution.scores import Score
from voxplain.attribution.smooth_integrated import SmoothIG, SmoothIGSquared
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.space.box import Box
from voxplain.space.volume import Volume
from voxplain.testing.models import SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPES = [(4, 5, 6), (5, 6)]
SPACING = (0.7, 1.1, 2.3)
SEED, N, NOISE = 3, 4, 0.15
Array = NDArray[np.float64]
_QUANTILE = np.quantile


def image_of(shape: tuple[int, ...], n_channels: int = 2) -> Volume:
    image = volume(oblique_grid(shape, SPACING[: len(shape)]), n_channels=n_channels, seed=1)
    return image.with_data(image.data.astype(np.float64))


def ours(image: Volume, method: Method, score: Score = "probability") -> Array:
    rank = image.grid.rank
    net = SmallNet(rank, image.n_channels, n_classes=3, seed=5)
    model = describe(net, rank=rank, n_channels=image.n_channels, window=image.grid.shape)
    target = ClassTarget("class_1", Everywhere(), score=score)
    compute = Compute("cpu", precision="float64")
    result = explain(model, image, target, method, seed=SEED, compute=compute)
    return np.asarray(result[target.name].values)


def total_of(image: Volume, score: Score = "probability") -> Callable[[torch.Tensor], torch.Tensor]:
    net = SmallNet(image.grid.rank, image.n_channels, n_classes=3, seed=5).double()

    def total(x: torch.Tensor) -> torch.Tensor:
        logits = net(x)
        values = torch.softmax(logits, 1) if score == "probability" else logits
        return values[:, 1].flatten(1).sum(1)

    return total


def model_call(
    total: Callable[[torch.Tensor], torch.Tensor], *, is_channels_last: bool = False
) -> Callable[..., dict[str, Any]]:
    """What PAIR's program calls: gradients of a batch."""

    def call(
        batch: Array, call_model_args: Any = None, expected_keys: Any = None
    ) -> dict[str, Any]:
        x = torch.from_numpy(np.asarray(batch, dtype=np.float64))
        x = (x.movedim(-1, 1) if is_channels_last else x).requires_grad_()
        (gradient,) = torch.autograd.grad(total(x).sum(), x)
        gradient = gradient.movedim(1, -1) if is_channels_last else gradient
        return {saliency.core.INPUT_OUTPUT_GRADIENTS: gradient.numpy()}

    return call


def draws(image: Volume) -> Array:
    """The noise of N copies, (N, n_channels, *shape)."""
    field = NoiseField(SEED, case=int(image.sha256()[:16], 16))
    axes = tuple(range(1, image.data.ndim))
    sigma = NOISE * np.ptp(image.data, axis=axes, keepdims=True)
    box = Box.whole(image.grid.shape)
    return np.stack([sigma * field.crop(i, image.n_channels, box) for i in range(N)])


# -- smooth IG ------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize(
    ("method", "name"),
    [
        (SmoothIG(n=N, noise=NOISE, points=3, baseline=Constant(0.3)), "smoothgrad"),
        (SmoothIGSquared(n=N, noise=NOISE, points=3, baseline=Constant(0.3)), "smoothgrad_sq"),
    ],
)
def test_captums_noise_tunnel_around_integrated_gradients(
    shape: tuple[int, ...],
    score: Score,
    method: Method,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = image_of(shape)
    noise = torch.from_numpy(draws(image))

    def normal(mean: float, deviation: torch.Tensor) -> torch.Tensor:
        assert mean == 0
        assert deviation.shape == noise.shape
        return noise

    monkeypatch.setattr(torch, "normal", normal)
    inner = captum.attr.IntegratedGradients(total_of(image, score))
    wanted = captum.attr.NoiseTunnel(inner).attribute(
        torch.from_numpy(image.data)[None], nt_type=name, nt_samples=N, stdevs=1.0,
        baselines=0.3, n_steps=3, method="gausslegendre",
    )  # fmt: skip
    found = ours(image, method, score)
    assert np.abs(found).max() > 1e-4
    # captum holds the quadrature's weights in float32
    atol = 2e-7 * np.abs(found).max()
    np.testing.assert_allclose(found, wanted[0].detach().numpy(), rtol=0, atol=atol)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("is_squared", [True, False])
def test_pairs_smoothed_mask(
    shape: tuple[int, ...], is_squared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Arun's SIG; one channel, since there the noise has one width for all channels."""
    image = image_of(shape, n_channels=1)
    noise = iter(draws(image))
    monkeypatch.setattr(np.random, "normal", lambda mean, deviation, size: next(noise))
    wanted = saliency.core.IntegratedGradients().GetSmoothedMask(
        image.data, model_call(total_of(image)), stdev_spread=NOISE, nsamples=N,
        magnitude=is_squared, x_steps=10, x_baseline=np.full(image.data.shape, -1.0), batch_size=10,
    )  # fmt: skip
    kind = SmoothIGSquared if is_squared else SmoothIG
    found = ours(image, kind(N, NOISE, 10, "agg2exp", Constant(-1.0)))
    assert next(noise, None) is None
    # the program sums in float32
    np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-6 * np.abs(found).max())


# -- expected gradients ---------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_the_mean_of_captums_integrated_gradients(shape: tuple[int, ...], score: Score) -> None:
    image = image_of(shape)
    other = image.with_data(image.data[..., ::-1].copy())
    references: dict[Baseline, Array] = {
        Constant(0.3): np.full_like(image.data, 0.3),
        MeanImage(): np.broadcast_to(
            image.data.mean(tuple(range(1, image.data.ndim)), keepdims=True), image.data.shape
        ),
        Blurred(1.5): np.stack(
            [
                gaussian_filter(c, 1.5 / np.array(image.grid.spacing), mode="nearest")
                for c in image.data
            ]
        ),
        GivenImage(other): other.data.astype(np.float64),
    }
    x = torch.from_numpy(image.data)[None]
    integrated = captum.attr.IntegratedGradients(total_of(image, score))
    wanted = np.mean(
        [
            integrated.attribute(x, torch.from_numpy(data.copy())[None], n_steps=40)[0].numpy()
            for data in references.values()
        ],
        axis=0,
    )
    errors = [
        np.abs(ours(image, ExpectedGradients(n, tuple(references)), score) - wanted).max()
        for n in (8, 200)
    ]
    # stratified draws: the error falls with n^-1.5, here to (8/200)^1.5 = 1/125
    assert errors[1] < 2e-3 * np.abs(wanted).max()
    assert errors[1] < errors[0] / 20


# -- blur IG --------------------------------------------------------------------------------
def test_pairs_blur_ig() -> None:
    """The program falls to 0 beyond the edge, ours goes on: equal where the edge is 0."""
    rng = np.random.default_rng(2)
    data = np.zeros((2, 34, 37))
    data[:, 14:19, 12:22] = rng.normal(1, 1, (2, 5, 10))
    image = Volume(data, oblique_grid(data.shape[1:], (0.8, 0.8)))
    call = model_call(total_of(image), is_channels_last=True)
    wanted = saliency.core.BlurIG().GetMask(
        np.moveaxis(data, 0, -1), call, max_sigma=2.0, steps=400, grad_step=1e-5, batch_size=1
    )
    wanted = np.moveaxis(wanted, -1, 0)
    largest = np.abs(wanted).max()
    runs: list[tuple[int, Spacing]] = [(5, "sigma"), (100, "sigma"), (100, "variance")]
    found = {(n, s): ours(image, BlurIG(n, max_sigma_mm=1.6, spacing=s)) for n, s in runs}
    # SciPy cuts the Gaussian at 4 σ, whole voxels: a jump that the derivative does not see
    for (n, _), values in found.items():
        error = np.abs(values - wanted).max()
        assert error < 1e-3 * largest if n == 100 else error > 5e-3 * largest


# -- guided IG ------------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("score", ["logit", "probability"])
@pytest.mark.parametrize(
    ("n", "fraction", "distance"),
    [(1, 0.25, 0.02), (7, 0.25, 0.02), (30, 0.25, 0.02), (9, 0.1, 0.3), (12, 0.6, 1.0), (5, 1, 0)],
)
def test_pairs_guided_ig(
    shape: tuple[int, ...],
    score: Score,
    n: int,
    fraction: float,
    distance: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = image_of(shape)
    image.data[0, 0, 1] = 0.3  # voxels that have no way to go
    with monkeypatch.context() as patched:  # the program calls it by a name that NumPy dropped
        patched.setattr(np, "quantile", lambda a, q, interpolation: _QUANTILE(a, q, method="lower"))
        wanted = saliency.core.GuidedIG().GetMask(
            image.data,
            model_call(total_of(image, score)),
            x_baseline=np.full(image.data.shape, 0.3),
            x_steps=n,
            fraction=fraction,
            max_dist=distance,
        )
    found = ours(image, GuidedIG(n, fraction, distance, Constant(0.3)), score)
    atol = 1e-8 * np.abs(wanted).max()  # it may stop a step 1e-9 short of its length
    np.testing.assert_allclose(found, wanted, rtol=0, atol=atol)
    if n > 5 and fraction < 1:
        straight = ours(image, IntegratedGradients(n, baseline=Constant(0.3)), score)
        assert np.abs(found - straight).max() > 1e-2 * np.abs(wanted).max()
