"""Distances in mm against the definition, and what lies within them."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from voxplain.errors import LabelError
from voxplain.regions.distances import around, dilate_mm, dilate_steps, distance_mm, shells
from voxplain.space.box import Box
from voxplain.testing.phantoms import SHAPE, SPACING, oblique_grid

CASES = [(SHAPE, SPACING), ((9, 6, 8), (1.0, 1.0, 1.0)), ((13, 17), (2.3, 0.7))]


def scattered(shape: tuple[int, ...], seed: int, share: float = 0.03) -> NDArray[np.bool_]:
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) < share
    mask[tuple(rng.integers(0, shape))] = True
    return mask


def naive(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """Smallest of all distances to a voxel of the mask."""
    every = np.stack(np.meshgrid(*map(np.arange, mask.shape), indexing="ij"), axis=-1)
    steps = every[..., None, :] - np.argwhere(mask)
    return np.asarray(np.sqrt(((steps * spacing) ** 2).sum(-1)).min(-1))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_as_the_definition(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    mask = scattered(shape, seed, share=0.1)
    outside = naive(mask, spacing)
    np.testing.assert_allclose(distance_mm(mask, spacing), outside, rtol=0, atol=1e-12)
    signed = distance_mm(mask, spacing, signed=True)
    np.testing.assert_allclose(signed, outside - naive(~mask, spacing), rtol=0, atol=1e-12)
    assert (signed[mask] < 0).all()
    assert (signed[~mask] > 0).all()


def test_distances_are_those_of_the_patient_on_an_oblique_grid() -> None:
    grid = oblique_grid(seed=4)
    mask = scattered(grid.shape, 4)
    every = grid.to_world(np.moveaxis(np.indices(grid.shape), 0, -1))
    apart = np.linalg.norm(every[..., None, :] - every[mask], axis=-1).min(-1)
    np.testing.assert_allclose(distance_mm(mask, grid.spacing), apart, rtol=0, atol=1e-9)


def test_nothing_to_measure_to() -> None:
    empty = np.zeros(SHAPE, bool)
    assert (distance_mm(empty, SPACING) == np.inf).all()
    assert (distance_mm(empty, SPACING, signed=True) == np.inf).all()
    assert (distance_mm(~empty, SPACING) == 0).all()
    assert (distance_mm(~empty, SPACING, signed=True) == -np.inf).all()
    assert not dilate_mm(empty, SPACING, math.inf).any()
    assert not dilate_steps(empty, 3).any()
    assert (shells(empty, SPACING, (0, 2, math.inf)) == -1).all()
    assert dilate_mm(~empty, SPACING, 1.0).all()
    assert (shells(~empty, SPACING, (0, 2)) == 0).all()


# -- boxes ----------------------------------------------------------------------------------
@pytest.mark.parametrize("margin", [0.0, 0.69, 0.7, 1.5, 2.3, 4.6, 100.0, math.inf])
def test_around_is_the_smallest_box_with_all_voxels_in_reach(margin: float) -> None:
    rng = np.random.default_rng(5)
    for _ in range(10):
        start = rng.integers(0, SHAPE)
        stop = rng.integers(start + 1, np.asarray(SHAPE) + 1)
        box = Box(tuple(start.tolist()), tuple(stop.tolist()))
        mask = np.zeros(SHAPE, bool)
        mask[box.slices] = True
        assert around(box, margin, SPACING, SHAPE) == Box.around(naive(mask, SPACING) <= margin)


def test_around_a_box_that_reaches_outside() -> None:
    grown = around(Box((-4, 2), (1, 4)), 2.0, (1.0, 0.5), (9, 30))
    assert grown == Box((0, 0), (3, 8))


# -- dilations ------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_dilations(shape: tuple[int, ...], spacing: tuple[float, ...], seed: int) -> None:
    mask = scattered(shape, seed)
    kept = mask.copy()
    apart = naive(mask, spacing)
    for mm in (0.0, 0.5, 1.1, 2.05, 3.37, 7.0, math.inf):
        np.testing.assert_array_equal(dilate_mm(mask, spacing, mm), apart <= mm)
    np.testing.assert_array_equal(mask, kept)


def test_parts_that_lie_far_apart_are_grown_as_one_mask() -> None:
    """Few voxels in the corners of a larger array: each is measured in its own box."""
    mask = np.zeros((40, 31, 27), bool)
    for corner in itertools.product((1, 38), (0, 28), (2, 26)):
        mask[corner] = True
    mask[3, 2, 3] = True  # within reach of a corner's own box
    for mm in (1.0, 3.2, 6.5, 30.0):
        expected = distance_mm(mask, SPACING) <= mm
        np.testing.assert_array_equal(dilate_mm(mask, SPACING, mm), expected)


def test_whole_steps_are_reached_though_the_spacing_is_rounded() -> None:
    """3 · 0.7 is above 2.1 in float64, and a spacing from a file is a little off."""
    mask = np.zeros((1, 40), bool)
    mask[0, 0] = True
    for spacing in (0.7, float(np.float32(0.7)), np.linalg.norm([0.7 * 0.6, 0.7 * 0.8])):
        for k in (1, 3, 6, 34):
            edge = 0.7 * k if k != 3 else 2.1
            assert dilate_mm(mask, (1.0, float(spacing)), edge).sum() == k + 1
            assert (
                around(Box((0, 0), (1, 1)), edge, (1.0, float(spacing)), (1, 40)).stop[1] == k + 1
            )
            assert (shells(mask, (1.0, float(spacing)), (0, edge)) == 1).sum() == k


@pytest.mark.parametrize("neighbours", [6, 18, 26])
@pytest.mark.parametrize("steps", [0, 1, 2, 3])
def test_voxel_steps_have_their_shapes(neighbours: int, steps: int) -> None:
    """6: the ball of the sum of steps, 26: of the largest, 18: of both, the sum halved."""
    mask = np.zeros((9, 11, 10), bool)
    mask[4, 5, 5] = True
    away = np.abs(np.indices(mask.shape) - np.array([4, 5, 5]).reshape(3, 1, 1, 1))
    total, largest = away.sum(0), away.max(0)
    expected = {
        6: total <= steps,
        18: (largest <= steps) & (total <= 2 * steps),
        26: largest <= steps,
    }
    grown = dilate_steps(mask, steps, neighbours)
    np.testing.assert_array_equal(grown, expected[neighbours])
    assert mask.sum() == 1
    if neighbours == 18:
        np.testing.assert_array_equal(dilate_steps(mask, steps), grown)


@pytest.mark.parametrize("shape", [SHAPE, (13, 17)])
def test_voxel_steps_one_after_another(shape: tuple[int, ...]) -> None:
    """Masks at the border of the array, and steps beyond it."""
    mask = scattered(shape, 6)
    np.testing.assert_array_equal(dilate_steps(mask, 0), mask)
    once = mask
    for steps in range(1, 20):
        once = dilate_steps(once, 1)
        np.testing.assert_array_equal(dilate_steps(mask, steps), once)
    assert once.all()


# -- shells ---------------------------------------------------------------------------------
@pytest.mark.parametrize("edges", [(0,), (0, 1.5), (0, 0.9, 2.05, 6.1), (0, 2.05, math.inf)])
@pytest.mark.parametrize(("shape", "spacing"), CASES)
def test_shells(
    shape: tuple[int, ...], spacing: tuple[float, ...], edges: tuple[float, ...]
) -> None:
    mask = scattered(shape, 8)
    apart = naive(mask, spacing)
    expected = np.full(shape, -1)
    expected[mask] = 0
    for i, (low, high) in enumerate(itertools.pairwise(edges), 1):
        expected[(apart > low) & (apart <= high)] = i
    number = shells(mask, spacing, edges)
    np.testing.assert_array_equal(number, expected)
    assert number.dtype == np.int16


# -- errors ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("edges", "message"),
    [((), "rise from 0"), ((1, 2), "got 1, 2"), ((0, 2, 2), "got 0, 2, 2"),
     ((0, 3, 2), "got 0, 3, 2"), ((0, math.nan), "got 0, nan")],
)  # fmt: skip
def test_edges_that_do_not_rise(edges: tuple[float, ...], message: str) -> None:
    with pytest.raises(LabelError, match=message):
        shells(np.ones(SHAPE, bool), SPACING, edges)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, math.nan, 1.0)])
@pytest.mark.parametrize("call", [distance_mm, dilate_mm, shells, around])
def test_spacing_out_of_range(call: Any, spacing: tuple[float, ...]) -> None:
    mask = np.zeros(SHAPE, bool)
    arguments = {
        distance_mm: (mask, spacing),
        dilate_mm: (mask, spacing, 1.0),
        shells: (mask, spacing, (0, 1)),
        around: (Box.whole(SHAPE), 1.0, spacing, SHAPE),
    }
    with pytest.raises(LabelError, match="spacing is 3 positive numbers in mm"):
        call(*arguments[call])


def test_other_settings_out_of_range() -> None:
    mask = np.ones(SHAPE, bool)
    for mm in (-1.0, math.nan):
        with pytest.raises(LabelError, match=r"^mm is a distance of at least 0"):
            dilate_mm(mask, SPACING, mm)
        with pytest.raises(LabelError, match=r"^margin_mm is a distance of at least 0"):
            around(Box.whole(SHAPE), mm, SPACING, SHAPE)
    with pytest.raises(LabelError, match="steps is at least 0, got -1"):
        dilate_steps(mask, -1)
    with pytest.raises(LabelError, match="6, 18, 26 in 3D, got 8"):
        dilate_steps(mask, 1, 8)
    with pytest.raises(LabelError, match=r"inside an array of shape \(5, 7, 11\)"):
        around(Box((5, 0, 0), (6, 1, 1)), 1.0, SPACING, SHAPE)
