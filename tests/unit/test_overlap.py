"""Dice and IoU of predicted regions, by hand and on another grid."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.regions.overlap import overlap
from voxplain.space import Grid, LabelMap

GRID = Grid((2, 3, 4), np.diag([0.7, 1.1, 2.3, 1.0]))
NAMES = {1: "a", 2: "b", 3: "nowhere", 4: "unknown"}


def labels(values: list[int], names: dict[int, str], grid: Grid = GRID) -> LabelMap:
    return LabelMap(np.array(values, np.uint8).reshape(1, *grid.shape), grid, names)


PREDICTED = labels([1] * 6 + [2] * 4 + [0] * 13 + [4], NAMES)
TRUE = {1: "a", 2: "b", 3: "nowhere"}


def test_by_hand() -> None:
    found = overlap(PREDICTED, labels([0] * 3 + [1] * 6 + [0] * 15, TRUE))
    assert list(found.index) == ["a", "b", "nowhere", "unknown"]
    assert found.loc["a"].tolist() == [2 * 3 / 12, 3 / 9, 6, 6]
    assert found.loc["b"].tolist() == [0, 0, 4, 0]  # predicted and not there
    assert found.loc["nowhere", ["dice", "iou"]].isna().all()
    assert found.loc["nowhere", ["n_predicted", "n_true"]].tolist() == [0, 0]
    assert found.loc["unknown", ["dice", "iou", "n_true"]].isna().all()


def test_ignored_voxels_count_nowhere() -> None:
    true = labels([9] * 2 + [0] + [1] * 6 + [0] * 15, {**TRUE, 9: "ignore"})
    assert overlap(PREDICTED, true).loc["a"].tolist() == [2 * 3 / 10, 3 / 7, 4, 6]


def test_regions_may_overlap() -> None:
    masks = {"whole": np.ones((2, 3, 4), bool), "half": np.arange(24).reshape(2, 3, 4) < 12}
    both = LabelMap.from_masks(masks, GRID)
    assert overlap(both, both)["dice"].tolist() == [1, 1]


@pytest.mark.parametrize("orientation", ["LPS", "SAR"])
def test_truth_may_lie_on_another_grid(orientation: str) -> None:
    rng = np.random.default_rng(0)
    world = rng.integers(0, 3, GRID.shape)
    one = LabelMap(world[None], GRID, {1: "a", 2: "b"})
    other = GRID.reorient(orientation)
    index = np.stack(np.meshgrid(*map(np.arange, other.shape), indexing="ij"), -1).reshape(-1, 3)
    back = np.rint(GRID.to_index(other.to_world(index))).astype(int)
    turned = LabelMap(world[tuple(back.T)].reshape(1, *other.shape), other, {1: "a", 2: "b"})
    assert overlap(one, turned)["dice"].tolist() == [1, 1]
