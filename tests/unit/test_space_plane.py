"""Pictures are upright and their sides are named right, however the array lies in the patient."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxplain.errors import GridError
from voxplain.space.grid import Grid
from voxplain.space.plane import Plane, obliquity_degrees, planes_through
from voxplain.testing.phantoms import oblique_grid

ORIENTATIONS = [
    "".join(letters)
    for order in itertools.permutations(["LR", "PA", "IS"])
    for letters in itertools.product(*order)
]
# what grows to the right and downwards in each picture, in RAS+ axes, and with which sign
RUNS = {"axial": (0, -1, 1, -1), "coronal": (0, -1, 2, -1), "sagittal": (1, -1, 2, -1)}


def coordinates(grid: Grid) -> np.ndarray:
    """World position of every voxel, (3, *shape)."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    return np.moveaxis(grid.to_world(index), -1, 0)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(ORIENTATIONS),
    st.sampled_from(sorted(RUNS)),
    st.integers(0, 50),
    st.tuples(st.integers(0, 4), st.integers(0, 4), st.integers(0, 4)),
)
def test_picture_runs_to_the_left_and_down_the_patient(
    orientation: str, name: str, seed: int, index: tuple[int, int, int]
) -> None:
    grid = oblique_grid(seed=seed).reorient(orientation)
    plane = Plane(name, grid, index)
    right, right_sign, down, down_sign = RUNS[name]
    world = [plane.take(axis) for axis in coordinates(grid)]
    assert (np.sign(np.diff(world[right], axis=1)) == right_sign).all()
    assert (np.sign(np.diff(world[down], axis=0)) == down_sign).all()
    cut = 3 - right - down
    own_axis = next(i for i, c in enumerate(orientation) if c in ("LR", "PA", "IS")[cut])
    expected = np.take(coordinates(grid)[cut], index[own_axis], axis=own_axis)
    assert np.allclose(np.sort(world[cut].ravel()), np.sort(expected.ravel()))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "PIR"])
def test_the_picture_does_not_depend_on_how_the_array_is_stored(orientation: str) -> None:
    ras = oblique_grid()
    stored = ras.reorient(orientation)
    values = np.sin(coordinates(ras)).sum(axis=0)
    moved = np.sin(coordinates(stored)).sum(axis=0)
    at = (1, 4, 9)
    there = tuple(int(i) for i in np.rint(stored.to_index(ras.to_world(at))))
    for a, b in zip(planes_through(ras, at), planes_through(stored, there), strict=True):
        assert a.take(values) == pytest.approx(b.take(moved))
        assert a.size_mm == pytest.approx(b.size_mm)
        assert (a.ends, a.title) == (b.ends, b.title)


def test_sides_sizes_and_titles_in_closed_form() -> None:
    grid = Grid((5, 7, 11), np.array(
        [[-0.7, 0, 0, 10], [0, 1.1, 0, -20], [0, 0, 2.3, 30], [0, 0, 0, 1]]))  # fmt: skip
    axial, coronal, sagittal = planes_through(grid, (1, 2, 3))
    assert axial.ends == ("A", "L", "P", "R")
    assert coronal.ends == ("S", "L", "I", "R")
    assert sagittal.ends == ("S", "P", "I", "A")
    assert axial.size_mm == pytest.approx((7 * 1.1, 5 * 0.7))
    assert coronal.size_mm == pytest.approx((11 * 2.3, 5 * 0.7))
    assert sagittal.size_mm == pytest.approx((11 * 2.3, 7 * 1.1))
    assert axial.title == "axial, S 36.9 mm"
    assert coronal.title == "coronal, P 17.8 mm"
    assert sagittal.title == "sagittal, R 9.3 mm"
    assert obliquity_degrees(grid) == pytest.approx(0, abs=1e-6)


def test_two_dimensions_are_shown_as_stored() -> None:
    grid = Grid((4, 6), np.diag([2.0, 3.0, 1.0]))
    (plane,) = planes_through(grid, (0, 0))
    values = np.arange(24).reshape(4, 6)
    assert np.array_equal(plane.take(values), values)
    assert plane.size_mm == (8, 18)
    assert plane.ends is None


def test_oblique_angle() -> None:
    angle = np.radians(9)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    assert obliquity_degrees(Grid((3, 4, 5), affine)) == pytest.approx(9)


def test_errors_name_what_came() -> None:
    grid = oblique_grid()
    with pytest.raises(GridError, match="planes axial, coronal, sagittal, not 'picture'"):
        Plane("picture", grid, (0, 0, 0))
    with pytest.raises(GridError, match=r"voxel \(0, 7, 0\) lies outside"):
        Plane("axial", grid, (0, 7, 0))
    with pytest.raises(GridError, match="lies outside"):
        Plane("axial", grid, (0, 0))
