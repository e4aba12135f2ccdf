"""Shapley values on one window and of a classifier, against captum and shapiq."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from captum.attr import FeatureAblation, KernelShap, ShapleyValues, ShapleyValueSampling

from voxplain.attribution import ClassTarget, Everywhere, Shapley, explain
from voxplain.inference.compute import Compute
from voxplain.models import Model, wrap
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.testing.models import Pooled, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
N_REGIONS = 5  # and background

Value = Callable[[torch.Tensor], torch.Tensor]


def case(kind: str, seed: int) -> tuple[Model, Volume, LabelMap, ClassTarget, Value]:
    """Model, image, regions, target, and the target's value of a batch as plain torch."""
    if kind == "volume":
        grid = oblique_grid((6, 7, 9))
        net = SmallNet(3, n_channels=2, seed=seed)
        net.first.weight.data *= 2
        model = describe(net, n_channels=2, window=grid.shape)
        target = ClassTarget("class_1", Everywhere())
    else:
        grid = oblique_grid((13, 11), (0.7, 1.1))
        net = Pooled(SmallNet(2, n_channels=2, seed=seed))
        model = wrap(
            net, kind="classification", classes=("a", "b", "c"), channels=("x", "y"), rank=2,
            check=False,
        )  # fmt: skip
        target = ClassTarget("b")
    twin = deepcopy(net).double()

    def value(x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = twin(x)
        return torch.as_tensor(logits[:, 1].reshape(len(x), -1).sum(1))

    return model, volume(grid, 2, seed=seed), labels(grid, N_REGIONS, seed=seed), target, value


def own(model: Model, image: Volume, regions: LabelMap, target: ClassTarget, method: Shapley):
    result = explain(model, image, target, method, regions=regions, compute=DOUBLE)
    assert result.players is not None
    frame = result.players.frame
    return frame["value"].to_numpy(), frame["error"].to_numpy()


def by_region(maps: torch.Tensor, mask: torch.Tensor) -> np.ndarray:
    """Value that captum paints into each region, (n_regions,)."""
    return np.array([float(maps[0][mask[0] == k][0]) for k in range(N_REGIONS + 1)])


@pytest.mark.parametrize("kind", ["volume", "classifier"])
def test_captum(kind: str) -> None:
    model, image, regions, target, value = case(kind, seed=3)
    exact, _ = own(model, image, regions, target, Shapley())
    x = torch.from_numpy(image.data).double()[None]
    mask = torch.from_numpy(regions.layers.astype(np.int64))[None].expand(1, 2, *image.grid.shape)
    mask = mask.contiguous()
    settings = {"baselines": 0.0, "feature_mask": mask}
    scale = np.abs(exact).max()
    # all orders: the same values, up to captum's sums in float32
    found = by_region(ShapleyValues(value).attribute(x, **settings), mask)
    np.testing.assert_allclose(exact, found, atol=1e-5 * scale)
    # captum's estimates scatter around them; more samples, less scatter
    torch.manual_seed(0)
    sampled = by_region(ShapleyValueSampling(value).attribute(x, n_samples=60, **settings), mask)
    assert np.abs(sampled - exact).max() < 0.1 * scale
    kernel = by_region(KernelShap(value).attribute(x, n_samples=400, **settings), mask)
    # captum's kernel weights the two ends by a large number instead of exactly
    assert np.abs(kernel - exact).max() < 0.1 * scale
    # the last step of an order: what is lost when one region alone is removed
    alone = by_region(FeatureAblation(value).attribute(x, **settings), mask)
    assert np.abs(alone - exact).max() > 1e-3 * scale


def test_sampled_values_meet_the_exact_ones() -> None:
    """Drawn coalitions against all of them, on the same cubes."""
    model, image, regions, target, _ = case("volume", seed=4)
    few, error = own(model, image, regions, target, Shapley("cubes:6", exact=2, samples=100))
    exact, none = own(model, image, regions, target, Shapley("cubes:6", exact=16))
    assert not none.any()
    assert np.abs(few - exact).max() < 5 * error.max()
    assert error.max() < 0.1 * np.abs(exact).max()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_shapiq() -> None:
    """Values and interactions of order 2 from shapiq's exact computer, on the same game."""
    import shapiq

    model, image, regions, target, value = case("volume", seed=5)
    x = torch.from_numpy(image.data).double()[None]
    numbers = torch.from_numpy(regions.layers[0].astype(np.int64))

    class Game(shapiq.Game):
        def value_function(self, coalitions: np.ndarray) -> np.ndarray:
            everyone = torch.from_numpy(np.asarray(coalitions, bool))
            rows = [value(x * present[numbers]).item() for present in everyone]
            return np.array(rows)

    game = Game(n_players=N_REGIONS + 1, normalize=False)
    computer = shapiq.ExactComputer(game, n_players=N_REGIONS + 1)
    result = explain(
        model, image, target, Shapley(interactions=True), regions=regions, compute=DOUBLE
    )
    assert result.players is not None
    values = computer("SV", order=1)
    pairs = computer("SII", order=2)
    found = result.players.matrix().to_numpy()[0]
    scale = np.abs(found).max()
    np.testing.assert_allclose(
        found, [values[(i,)] for i in range(N_REGIONS + 1)], atol=1e-9 * scale
    )
    matrix = result.players.interactions(target.name).to_numpy()
    for i in range(N_REGIONS + 1):
        for j in range(i):
            assert abs(matrix[i, j] - pairs[(j, i)]) <= 1e-9 * scale
