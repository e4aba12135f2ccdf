"""The gradient is the slope of the score that is reported, through several windows."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from voxplain.attribution import ClassTarget, Everywhere, Mask, explain
from voxplain.attribution.targets import Target
from voxplain.inference.compute import Compute
from voxplain.models import Model
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

STEP = 2e-3
FLOAT64 = Compute("cpu", precision="float64")
# fourth order: (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h
STENCIL = {-2: 1 / 12, -1: -8 / 12, 1: 8 / 12, 2: -1 / 12}


def slope(model: Model, image: Volume, target: Target, direction: NDArray[np.float64]) -> float:
    """Slope of the target along a direction, from scores only."""
    total = 0.0
    for place, weight in STENCIL.items():
        moved = image.with_data(image.data + place * STEP * direction)
        result = explain(model, moved, target, "gradient", keep=False, compute=FLOAT64)
        total += weight * result.targets[0].score
    return total / STEP


@pytest.fixture(params=[(5, 7, 11), (7, 11)], ids=["3D", "2D"])
def image(request: pytest.FixtureRequest) -> Volume:
    shape = request.param
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
    made = volume(grid, n_channels=2, seed=2)
    return made.with_data(made.data.astype(np.float64))


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize("reduction", ["sum", "dice"])
def test_probability_target(image: Volume, blend: str, reduction: str) -> None:
    rank = image.grid.rank
    window = WindowSettings((4, 5, 6)[-rank:], overlap=0.4, blend=blend)  # type: ignore[arg-type]
    model = describe(SmallNet(rank, 2, 3, seed=1), rank=rank, n_channels=2, window=window)
    where = Mask(labels(image.grid, 2), "organ_1") if reduction == "dice" else Everywhere()
    target = ClassTarget("class_1", where, score="probability", reduction=reduction)  # type: ignore[arg-type]

    result = explain(model, image, target, "gradient", compute=FLOAT64)
    (attribution,) = result.attributions.values()
    assert result.provenance.parameters["n_windows"] > 3

    rng = np.random.default_rng(0)
    everywhere = rng.normal(size=image.data.shape)
    one_voxel = np.zeros(image.data.shape)  # where windows overlap
    one_voxel[(1, *[n // 2 for n in image.grid.shape])] = 1.0
    for direction in (everywhere, one_voxel):
        wanted = slope(model, image, target, direction)
        found = float((attribution.values * direction).sum())
        assert found == pytest.approx(wanted, rel=1e-6)
