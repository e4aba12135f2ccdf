"""captum agrees on a single window with the same settings and the same noise."""

from __future__ import annotations

from collections.abc import Callable

import captum.attr
import numpy as np
import pytest
import torch

from voxplain.attribution import (
    ClassTarget,
    Constant,
    Everywhere,
    InputXGradient,
    IntegratedGradients,
    SmoothGrad,
    SmoothGradSquared,
    VarGrad,
    explain,
)
from voxplain.attribution.integrated import Rule
from voxplain.attribution.method import Method
from voxplain.attribution.scores import Score
from voxplain.inference.compute import Compute
from voxplain.inference.noise import NoiseField
from voxplain.space.box import Box
from voxplain.space.volume import Volume
from voxplain.testing.models import SmallNet, describe
from voxplain.testing.phantoms import oblique_grid, volume

SHAPES = [(4, 5, 6), (5, 6)]
SEED, N, NOISE = 3, 6, 0.2


def image_of(shape: tuple[int, ...]) -> Volume:
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
    image = volume(grid, n_channels=2, seed=1)
    return image.with_data(image.data.astype(np.float64))


def network(rank: int) -> SmallNet:
    return SmallNet(rank, n_channels=2, n_classes=3, seed=5)


def ours(image: Volume, method: Method, score: Score = "probability") -> np.ndarray:
    model = describe(network(image.grid.rank), rank=image.grid.rank, n_channels=2,
                     window=image.grid.shape)  # fmt: skip
    target = ClassTarget("class_1", Everywhere(), score=score)
    result = explain(
        model, image, target, method, seed=SEED, compute=Compute("cpu", precision="float64")
    )
    (attribution,) = result.attributions.values()
    return attribution.values


def forward(rank: int, score: Score = "probability") -> Callable[[torch.Tensor], torch.Tensor]:
    net = network(rank).double()

    def total(x: torch.Tensor) -> torch.Tensor:
        logits = net(x)
        values = torch.softmax(logits, 1) if score == "probability" else logits
        return values[:, 1].flatten(1).sum(1)

    return total


def draws(image: Volume) -> torch.Tensor:
    """The noise of N copies, (N, 2, *shape)."""
    field = NoiseField(SEED, case=int(image.sha256()[:16], 16))
    axes = tuple(range(1, image.data.ndim))
    sigma = NOISE * np.ptp(image.data, axis=axes, keepdims=True)
    box = Box.whole(image.grid.shape)
    return torch.from_numpy(np.stack([sigma * field.crop(i, 2, box) for i in range(N)]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("score", ["logit", "probability"])
def test_input_x_gradient(shape: tuple[int, ...], score: Score) -> None:
    image = image_of(shape)
    x = torch.from_numpy(image.data)[None].requires_grad_()
    wanted = captum.attr.InputXGradient(forward(len(shape), score)).attribute(x)
    found = ours(image, InputXGradient(), score)
    np.testing.assert_allclose(found, wanted[0].detach().numpy(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("rule", "name"), [("gauss_legendre", "gausslegendre"), ("midpoint", "riemann_middle")]
)
@pytest.mark.parametrize("n", [2, 5])
def test_integrated_gradients(shape: tuple[int, ...], rule: Rule, name: str, n: int) -> None:
    image = image_of(shape)
    x = torch.from_numpy(image.data)[None]
    wanted = captum.attr.IntegratedGradients(forward(len(shape))).attribute(
        x, baselines=0.3, n_steps=n, method=name
    )
    found = ours(image, IntegratedGradients(n=n, rule=rule, baseline=Constant(0.3)))
    # captum holds the quadrature's weights in float32
    np.testing.assert_allclose(found, wanted[0].numpy(), rtol=0, atol=1e-7 * np.abs(found).max())


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("method", "name"),
    [
        (SmoothGrad(n=N, noise=NOISE), "smoothgrad"),
        (SmoothGradSquared(n=N, noise=NOISE), "smoothgrad_sq"),
        # captum subtracts mean² from the mean of squares: divided by n, as ours is
        (VarGrad(n=N, noise=NOISE), "vargrad"),
    ],
)
def test_noise_tunnel(
    shape: tuple[int, ...], method: Method, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_of(shape)
    noise = draws(image)

    def normal(mean: float, deviation: torch.Tensor) -> torch.Tensor:
        assert mean == 0
        assert deviation.shape == noise.shape
        return noise

    monkeypatch.setattr(torch, "normal", normal)
    x = torch.from_numpy(image.data)[None]
    saliency = captum.attr.Saliency(forward(len(shape)))
    wanted = captum.attr.NoiseTunnel(saliency).attribute(
        x, nt_type=name, nt_samples=N, stdevs=1.0, abs=False
    )
    found = ours(image, method)
    assert np.abs(found).max() > 1e-4
    np.testing.assert_allclose(found, wanted[0].numpy(), rtol=0, atol=1e-10)
