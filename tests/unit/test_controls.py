"""Control regions: where they may lie, that every place is as probable, what does not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chisquare

from voxplain.errors import GridError, LabelError
from voxplain.regions.controls import control_regions
from voxplain.regions.distances import distance_mm
from voxplain.regions.lesion import Lesion
from voxplain.regions.matching import find_lesions
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((15, 17, 21), (0.7, 1.1, 2.3), seed=2)
PLANE = Grid((7, 9), np.diag([1.0, 2.0, 1.0]))
CORNER = np.array([[True, True, False], [False, True, True]])  # 2D, asymmetric


def lesion(mask: NDArray[np.bool_], name: str = "P1") -> Lesion:
    return Lesion(name, "TP", Box.whole(mask.shape), mask)


def patient(seed: int) -> tuple[list[Lesion], NDArray[np.bool_], NDArray[np.bool_]]:
    """Three lesions, tissue that ends before the array, and what to avoid."""
    rng = np.random.default_rng(seed)
    avoid = np.zeros(GRID.shape, bool)
    for start, size in (((3, 3, 4), (2, 3, 2)), ((9, 12, 6), (3, 1, 2)), ((4, 9, 15), (1, 2, 1))):
        avoid[tuple(slice(a, a + k) for a, k in zip(start, size, strict=True))] = True
    tissue = np.zeros(GRID.shape, bool)
    tissue[1:14, 1:16, 2:20] = True
    tissue &= rng.random(GRID.shape) > 0.01
    return find_lesions(avoid, GRID), tissue, avoid


@pytest.mark.parametrize("seed", range(4))
def test_they_lie_in_tissue_away_from_lesions_and_apart(seed: int) -> None:
    lesions, tissue, avoid = patient(seed)
    margin = 2.2
    controls = control_regions(
        lesions, tissue, avoid, GRID, n=8, margin_mm=margin, rng=np.random.default_rng(seed)
    )
    assert [one.name for one in controls] == [f"C{i}" for i in range(1, 9)]
    assert {one.type for one in controls} == {"TN"}
    assert all(np.isnan(one.overlap) and one.partners == () for one in controls)
    masks = np.stack([one.on(GRID.shape) for one in controls])
    assert masks.sum(axis=0).max() == 1
    taken = masks.any(axis=0)
    assert tissue[taken].all()
    assert (distance_mm(avoid, GRID.spacing)[taken] > margin).all()
    # every shape twice or thrice, largest first
    sizes = [one.n_voxels for one in controls]
    assert sizes == sorted(sizes, reverse=True)
    for one in lesions:
        n = sum(np.array_equal(one.mask, control.mask) for control in controls)
        assert n in (2, 3)


def test_the_margin_is_exceeded_not_met() -> None:
    """On a line of 1 mm voxels, what is farther than 3 mm from voxel 0 begins at voxel 4."""
    grid = Grid((1, 6), np.eye(3))
    avoid = np.zeros(grid.shape, bool)
    avoid[0, 0] = True
    one = [lesion(np.ones((1, 2), bool))]
    every = np.ones(grid.shape, bool)
    controls = control_regions(
        one, every, avoid, grid, n=1, margin_mm=3.0, rng=np.random.default_rng(0)
    )
    assert controls[0].box == Box((0, 4), (1, 6))
    with pytest.raises(LabelError, match=r"1 control regions .* and 0 fit: 1 of 6 voxels"):
        control_regions(one, every, avoid, grid, n=1, margin_mm=4.0, rng=np.random.default_rng(0))
    # lesions themselves are avoided without a margin
    controls = control_regions(
        one, every, avoid, grid, n=2, margin_mm=0.0, rng=np.random.default_rng(1)
    )
    assert not any(control.on(grid.shape)[0, 0] for control in controls)


def places(free: NDArray[np.bool_], shape: NDArray[np.bool_]) -> list[tuple[int, ...]]:
    """Every start from where all voxels of a shape are free."""
    last = np.subtract(free.shape, shape.shape) + 1
    voxels = np.argwhere(shape)
    return [start for start in np.ndindex(*last) if free[tuple((voxels + start).T)].all()]


@pytest.mark.parametrize("tries", [0, 2, 1024])
def test_every_place_is_as_probable(tries: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By drawing alone, by looking through all places alone, and by the first then the second."""
    monkeypatch.setattr("voxplain.regions.controls._TRIES", tries)
    monkeypatch.setattr("voxplain.regions.controls._SLAB", 2)
    rng = np.random.default_rng(7)
    tissue = rng.random(PLANE.shape) > 0.25
    avoid = np.zeros(PLANE.shape, bool)
    able = places(tissue, CORNER)
    assert 5 < len(able) < 25
    counts = dict.fromkeys(able, 0)
    for _ in range(100 * len(able)):
        (one,) = control_regions(
            [lesion(CORNER)], tissue, avoid, PLANE, n=1, margin_mm=0.0, rng=rng
        )
        counts[one.box.start] += 1  # a KeyError for a place that is not allowed
    assert chisquare(list(counts.values())).pvalue > 1e-3


def test_the_only_place_is_found() -> None:
    """One place among 64 000, in the last slab."""
    grid = Grid((40, 40, 40), np.eye(4))
    shape = np.random.default_rng(3).random((5, 4, 6)) > 0.4
    tissue = np.random.default_rng(4).random(grid.shape) > 0.4
    tissue[33:38, 30:34, 20:26] |= shape
    tissue[:2] = True  # room, but for no shape that is 5 long
    assert places(tissue, shape) == [(33, 30, 20)]
    (one,) = control_regions(
        [lesion(shape)], tissue, np.zeros(grid.shape, bool), grid, n=1, margin_mm=3.0,
        rng=np.random.default_rng(5),
    )  # fmt: skip
    assert one.box == Box((33, 30, 20), (38, 34, 26))
    np.testing.assert_array_equal(one.mask, shape)


def test_the_same_generator_gives_the_same_regions() -> None:
    lesions, tissue, avoid = patient(1)
    kept = tissue.copy(), avoid.copy()

    def draw(seed: int) -> list[tuple[int, ...]]:
        rng = np.random.default_rng(seed)
        found = control_regions(lesions, tissue, avoid, GRID, n=5, margin_mm=1.0, rng=rng)
        return [one.box.start for one in found]

    assert draw(1) == draw(1)
    assert draw(1) != draw(2)
    np.testing.assert_array_equal(tissue, kept[0])
    np.testing.assert_array_equal(avoid, kept[1])


def test_a_shape_that_fits_nowhere_is_passed_over() -> None:
    shapes = [lesion(np.ones((6, 2), bool)), lesion(np.ones((1, 2), bool), "P2")]
    tissue = np.zeros(PLANE.shape, bool)
    tissue[2:6, 1:5] = True
    controls = control_regions(
        shapes, tissue, np.zeros(PLANE.shape, bool), PLANE, n=4, margin_mm=0.0,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert [one.mask.shape for one in controls] == [(1, 2)] * 4


def test_as_many_as_fit_and_not_one_more() -> None:
    """Single voxels fill the tissue to the last."""
    tissue = np.random.default_rng(1).random(PLANE.shape) > 0.5
    none = np.zeros(PLANE.shape, bool)
    one = [lesion(np.ones((1, 1), bool))]
    n = int(tissue.sum())
    controls = control_regions(
        one, tissue, none, PLANE, n=n, margin_mm=2.0, rng=np.random.default_rng(0)
    )
    np.testing.assert_array_equal(np.any([c.on(PLANE.shape) for c in controls], axis=0), tissue)
    with pytest.raises(LabelError, match=rf"{n + 1} control .* and {n} fit: .* ask for fewer"):
        control_regions(
            one, tissue, none, PLANE, n=n + 1, margin_mm=2.0, rng=np.random.default_rng(0)
        )
    with pytest.raises(LabelError, match="0 fit: 0 of 0 voxels of tissue"):
        control_regions(one, none, none, PLANE, n=1, margin_mm=2.0, rng=np.random.default_rng(0))


def test_without_lesions_they_are_balls() -> None:
    """A ball of 100 mm³ has a radius of 2.88 mm, a disc of 100 mm² one of 5.64 mm."""
    for spacing, radius in (((0.7, 1.1, 1.3), 2.8794), ((0.7, 1.1), 5.6419)):
        shape = (25, 21, 17)[: len(spacing)]
        grid = oblique_grid(shape, spacing)
        every = np.ones(shape, bool)
        (one,) = control_regions(
            [], every, ~every, grid, n=1, margin_mm=5.0, rng=np.random.default_rng(0)
        )
        mask = one.on(shape)
        middle = [(a + b - 1) // 2 for a, b in zip(one.box.start, one.box.stop, strict=True)]
        centre = np.zeros(shape, bool)
        centre[tuple(middle)] = True
        np.testing.assert_array_equal(mask, distance_mm(centre, spacing) <= radius)
        assert mask.sum() * np.prod(spacing) == pytest.approx(100, rel=0.1)
    # slices thicker than the ball: a disc of one slice
    grid = oblique_grid((9, 9, 3), (1.0, 1.0, 8.0))
    every = np.ones(grid.shape, bool)
    (one,) = control_regions(
        [], every, ~every, grid, n=1, margin_mm=0.0, rng=np.random.default_rng(0)
    )
    assert one.box.shape == (5, 5, 1)


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"n": -1}, "at least 0, got -1 and 1.0"), ({"margin_mm": -2.0}, "at least 0, got 1 and -2"),
     ({"margin_mm": float("nan")}, "got 1 and nan")],
)  # fmt: skip
def test_settings_out_of_range(changed: dict[str, Any], message: str) -> None:
    settings = {"n": 1, "margin_mm": 1.0, "rng": np.random.default_rng(0), **changed}
    every = np.ones(PLANE.shape, bool)
    with pytest.raises(LabelError, match=message):
        control_regions([], every, ~every, PLANE, **settings)


def test_none_asked_for_and_masks_of_another_shape() -> None:
    every = np.ones(PLANE.shape, bool)
    settings: dict[str, Any] = {"margin_mm": 1.0, "rng": np.random.default_rng(0)}
    assert control_regions([], every, ~every, PLANE, n=0, **settings) == []
    with pytest.raises(GridError, match=r"tissue must have .* \(7, 9\), got \(7, 8\)"):
        control_regions([], every[:, :8], ~every, PLANE, n=1, **settings)
    with pytest.raises(GridError, match=r"avoid must have .* \(7, 9\), got \(6, 9\)"):
        control_regions([], every, ~every[:6], PLANE, n=1, **settings)
