"""Connected instances and joined regions."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.errors import GridError, LabelError
from voxplain.regions import instances, join
from voxplain.regions.relabelling import relabel
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap

GRID = Grid((5, 7, 11), np.diag([0.7, 1.1, 2.3, 1.0]))


def test_instances_are_largest_first() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[0, 0, :2] = True
    mask[2, 2:5, 4:9] = True
    mask[4, 6, 5:11] = True
    found = instances(mask, GRID, name="lesion")
    assert dict(found.names) == {0: "background", 1: "lesion_1", 2: "lesion_2", 3: "lesion_3"}
    assert [int(found.mask(i).sum()) for i in (1, 2, 3)] == [15, 6, 2]
    assert found.mask("lesion_2")[4, 6, 7]
    np.testing.assert_array_equal(found.layers[0] > 0, mask)


def test_ties_stand_in_array_order() -> None:
    mask = np.zeros(GRID.shape, bool)
    for index in [(0, 6, 10), (1, 0, 0), (4, 2, 3)]:
        mask[index] = True
    found = instances(mask, GRID)
    assert [int(found.layers[0][i]) for i in [(0, 6, 10), (1, 0, 0), (4, 2, 3)]] == [1, 2, 3]


@pytest.mark.parametrize(
    ("step", "connectivity", "n_parts"),
    [
        ((1, 0, 0), 1, 1),
        ((1, 1, 0), 1, 2),
        ((1, 1, 0), 2, 1),
        ((1, 1, 0), None, 1),  # default in 3D: 18 neighbours
        ((1, 1, 1), None, 2),
        ((1, 1, 1), 3, 1),
    ],
)
def test_connectivity(step: tuple[int, ...], connectivity: int | None, n_parts: int) -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[2, 3, 5] = True
    mask[2 + step[0], 3 + step[1], 5 + step[2]] = True
    assert len(instances(mask, GRID, connectivity=connectivity).names) == n_parts + 1


def test_default_connectivity_in_2d_is_four_neighbours() -> None:
    mask = np.eye(3, 4, dtype=bool)
    grid = Grid((3, 4), np.eye(3))
    assert len(instances(mask, grid).names) == 4
    assert len(instances(mask, grid, connectivity=2).names) == 2


def test_small_instances_become_background_and_an_empty_mask_has_none() -> None:
    mask = np.zeros(GRID.shape, bool)
    mask[0, 0, :2] = True
    mask[3, 3, :3] = True
    found = instances(mask, GRID, min_voxels=3)
    assert found.region_names == ("background", "instance_1")
    assert int((found.layers > 0).sum()) == 3
    assert instances(np.zeros_like(mask), GRID).region_names == ("background",)


def test_more_than_255_instances() -> None:
    mask = np.zeros((5, 7, 41), bool)
    mask[::2, ::2, ::2] = True
    grid = Grid(mask.shape, np.eye(4))
    found = instances(mask, grid)
    assert len(found.names) == int(mask.sum()) + 1 == 253
    wide = np.zeros((7, 9, 41), bool)
    wide[::2, ::2, ::2] = True
    found = instances(wide, Grid(wide.shape, np.eye(4)))
    assert int(found.layers.max()) == int(wide.sum()) == 420


def test_instances_errors() -> None:
    mask = np.zeros(GRID.shape, bool)
    with pytest.raises(GridError, match=r"got \(5, 7\)"):
        instances(mask[..., 0], GRID)
    with pytest.raises(LabelError, match="1 to 3 on this grid, got 4"):
        instances(mask, GRID, connectivity=4)
    with pytest.raises(LabelError, match="at least 1, got 0"):
        instances(mask, GRID, min_voxels=0)


def labels() -> LabelMap:
    array = np.random.default_rng(2).choice([0, 2, 3, 900], size=GRID.shape)
    return LabelMap.of(array, GRID, {2: "c1", 3: "heart", 900: "c2", 1000: "absent"})


def test_join_disjoint_regions() -> None:
    own = labels()
    joined = join(own, {"spine": ["c2", "c1"]})
    assert dict(joined.names) == {0: "background", 1: "spine"}
    np.testing.assert_array_equal(joined.mask("spine"), own.mask("c1") | own.mask("c2"))

    kept = join(own, {"spine": ["c2", "c1"]}, rest="keep")
    assert kept.region_names == ("background", "spine", "heart", "absent")
    np.testing.assert_array_equal(kept.mask("heart"), own.mask("heart"))
    np.testing.assert_array_equal(kept.mask("background"), own.mask("background"))


def test_join_overlapping_regions_is_a_union() -> None:
    a = np.zeros(GRID.shape, bool)
    a[:3] = True
    b = np.zeros(GRID.shape, bool)
    b[2:4] = True
    c = np.zeros(GRID.shape, bool)
    c[:, :2] = True
    joined = join(LabelMap.from_masks({"a": a, "b": b, "c": c}, GRID), {"ab": ["a", "b"]}, "keep")
    np.testing.assert_array_equal(joined.mask("ab"), a | b)
    np.testing.assert_array_equal(joined.mask("c"), c)


@pytest.mark.parametrize(
    ("groups", "rest", "message"),
    [
        ({"g": ["hart"]}, "keep", "did you mean 'heart'"),
        ({"g": ["c1"], "h": ["c1"]}, "keep", "more than once: c1"),
        ({"g": ["c1", "c1"]}, "keep", "more than once: c1"),
        ({"g": []}, "keep", "needs a list of regions"),
        ({"g": "heart"}, "keep", "needs a list of regions"),
        ({"g": ["background"]}, "keep", "cannot be joined"),
        ({"heart": ["c1"]}, "keep", "name of a region that is not in it"),
        ({"g": ["c1"]}, "drop", "rest is"),
    ],
)
def test_join_errors(groups: dict[str, list[str]], rest: str, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        join(labels(), groups, rest)  # type: ignore[arg-type]


def test_relabel() -> None:
    old = np.array([[[0, 7], [300, 7]]])
    new = relabel(old, {0: 1, 7: 0, 300: 256})
    np.testing.assert_array_equal(new, [[[1, 0], [256, 0]]])
    assert new.dtype == np.uint16
