"""Shapley values from window games equal those of the game over the whole volume."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch

from voxplain.attribution import ClassTarget, Owen, Shapley, explain
from voxplain.attribution.ask import ask
from voxplain.attribution.coalitions import interaction_values, owen_values, shapley_values
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model
from voxplain.space.labelmap import LabelMap
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import Mirrored, SmallNet, describe
from voxplain.testing.phantoms import labels, oblique_grid, volume

DOUBLE = Compute("cpu", "float64")
SCORES = ["logit", "probability"]


def model_for(kind: str, seed: int) -> Model:
    window = WindowSettings((5, 7, 6), overlap=0.25, blend="gaussian")
    net = SmallNet(3, n_channels=2, n_classes=3, seed=seed)
    if kind == "plain":
        return describe(net, n_channels=2, window=window)
    folds = [net, SmallNet(3, n_channels=2, n_classes=3, seed=seed + 1)]
    return Mirrored(folds, axes=(0, 2), n_channels=2, window=window)


def whole_game(
    model: Model, image: Volume, regions: LabelMap, targets: list[ClassTarget]
) -> np.ndarray:
    """Values of all coalitions (2^p, T): the whole volume predicted for each, no sharing."""
    layers = regions.layers
    numbers = sorted(regions.names)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        question = ask(pipeline, image, targets, regions, seed=0)
        inner = pipeline.plan.inner()
        rows = []
        for k in range(2 ** len(numbers)):
            absent = [n for i, n in enumerate(numbers) if not k >> i & 1]
            in_none = (layers == 0).all(0)
            gone = np.zeros(layers.shape[1:], bool)
            for n in absent:
                gone |= in_none if n == 0 else (layers == n).any(0)
            changed = pipeline._padded.clone()
            changed[(slice(None), *inner.slices)][:, torch.from_numpy(gone)] = 0.0
            rows.append(question.values(lambda box, x=changed: x[(slice(None), *box.slices)]))
    return np.array(rows)


@pytest.mark.parametrize("kind", ["plain", "views"])
@pytest.mark.parametrize("score", SCORES)
def test_windows_equal_brute_force(kind: str, score: str) -> None:
    """Six regions, three windows, all classes."""
    grid = oblique_grid((5, 7, 14))
    image, regions = volume(grid, 2, seed=11), labels(grid, 5, seed=2)
    model = model_for(kind, seed=5)
    with open_pipeline(model, image, DOUBLE) as pipeline:
        assert len(pipeline.plan) == 3
    targets = [ClassTarget(c, score=score) for c in model.info.class_names]  # type: ignore[arg-type]
    wanted = whole_game(model, image, regions, targets)
    result = explain(
        model, image, targets, Shapley(interactions=True), regions=regions, compute=DOUBLE
    )
    players = result.players
    assert players is not None
    scale = np.abs(wanted).max()
    found = players.matrix().to_numpy()
    assert np.abs(found - shapley_values(wanted).T).max() <= 1e-9 * scale
    pairs = interaction_values(wanted)
    for t, target in enumerate(targets):
        matrix = players.interactions(target.name).to_numpy()
        off = ~np.eye(len(matrix), dtype=bool)
        assert np.abs(matrix - pairs[..., t])[off].max() <= 1e-9 * scale
        assert np.isnan(matrix[~off]).all()
    # the map sums to the values, region by region, and to the change of the score
    for t, summary in enumerate(result.targets):
        frame = result.table.frame
        rows = frame[frame["target"] == summary.name].groupby("region", sort=False)
        sums = (rows["positive"].sum() + rows["negative"].sum()).to_numpy()
        np.testing.assert_allclose(sums, found[t], atol=1e-9 * scale)
        assert abs(summary.gap or 0.0) <= 1e-9 * scale
        assert summary.score == pytest.approx(wanted[-1, t])


def test_overlapping_regions() -> None:
    """A voxel of two regions is gone when either is."""
    grid = oblique_grid((5, 7, 14))
    image = volume(grid, 2, seed=4)
    one, two = labels(grid, 2, seed=2), labels(grid, 2, seed=7)
    regions = LabelMap.from_masks(
        {"a": one.mask("organ_1"), "b": two.mask("organ_1"), "c": two.mask("organ_2")}, grid
    )
    assert len(regions.layers) > 1
    model = model_for("plain", seed=8)
    targets = [ClassTarget(c) for c in model.info.class_names]
    wanted = whole_game(model, image, regions, targets)
    result = explain(model, image, targets, Shapley(), regions=regions, compute=DOUBLE)
    assert result.players is not None
    found = result.players.matrix().to_numpy()
    np.testing.assert_allclose(found, shapley_values(wanted).T, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("score", SCORES)
def test_owen_equals_orders(score: str) -> None:
    """Owen values are means over the orders in which groups stay together."""
    grid = oblique_grid((5, 7, 14))
    image, regions = volume(grid, 2, seed=3), labels(grid, 3, seed=2)
    model = model_for("plain", seed=6)
    targets = [ClassTarget("class_1", score=score), ClassTarget("class_2", score=score)]  # type: ignore[arg-type]
    wanted = whole_game(model, image, regions, targets)
    groups = [[0], [1, 3], [2]]
    mean = np.zeros((4, 2))
    orders = [
        [i for part in parts for i in part]
        for outer in itertools.permutations(groups)
        for parts in itertools.product(*[list(itertools.permutations(g)) for g in outer])
    ]
    assert len(orders) == math.factorial(3) * 2
    for order in orders:
        before = 0
        for i in order:
            mean[i] += (wanted[before | 1 << i] - wanted[before]) / len(orders)
            before |= 1 << i
    np.testing.assert_allclose(
        owen_values(np.arange(16), wanted, groups, 4), mean, atol=1e-12 * np.abs(wanted).max()
    )
    method = Owen(groups="pair=organ_1+organ_3")
    result = explain(model, image, targets, method, regions=regions, compute=DOUBLE)
    assert result.players is not None
    found = result.players.matrix().to_numpy()
    np.testing.assert_allclose(found, mean.T, atol=1e-9 * np.abs(wanted).max())
