"""Planes for the report: upright, square pixels, through most of a mask."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.assess.pictures import picture, plane_through
from voxplain.space.grid import Grid
from voxplain.testing.phantoms import oblique_grid


def grid(orientation: str, shape: tuple[int, ...] = (6, 7, 8)) -> Grid:
    spacing = {"R": 1.0, "A": 2.0, "S": 3.0}
    base = Grid(shape, np.diag([*(spacing[c] for c in "RAS"), 1.0]))
    return base.reorient(orientation)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SRA", "AIL"])
def test_a_spot_is_where_a_reader_looks_for_it(orientation: str) -> None:
    """The patient's right is on the left, the front on top, whatever the array's order."""
    base = grid("RAS")
    own = grid(orientation)
    spot = np.zeros(own.shape, np.float32)
    world = base.to_world((5, 6, 2))  # right, anterior
    place = tuple(np.rint(own.to_index(world)).astype(int))
    spot[place] = 7.0
    plane = plane_through(spot > 0, own)
    shown, low, high = picture(plane, spot, 0.0)
    assert (low, high) == (0.0, 7.0)
    assert shown.shape == (14, 6)  # 7 voxels of 2 mm, 6 of 1 mm
    assert np.argwhere(shown == 255).tolist() == [[0, 0], [1, 0]]


def test_no_side_is_longer_than_its_limit() -> None:
    large = oblique_grid((4, 700, 300), (1.0, 1.0, 1.0))
    plane = plane_through(np.zeros(large.shape, bool), large)
    assert max(plane.pixels(np.zeros(large.shape)).shape) <= 192


def test_a_picture_is_shown_whole() -> None:
    flat = Grid((5, 9), np.eye(3))
    values = np.arange(45.0).reshape(5, 9)
    plane = plane_through(np.zeros(flat.shape, bool), flat)
    assert np.array_equal(plane.pixels(values), values)
    shown, low, high = picture(plane, values, None)
    assert (low, high) == (0.0, np.percentile(values, 99.5))
    assert shown[0, 0] == 0
    assert shown[-1, -1] == 255


def test_one_voxel_does_not_make_the_others_black() -> None:
    flat = Grid((40, 50), np.eye(3))
    values = np.full((40, 50), 2.0)
    values[3, 4] = 1000.0
    shown, _, high = picture(plane_through(np.zeros(flat.shape, bool), flat), values, 0.0)
    assert high == 2.0
    assert (shown == 255).all()


def test_a_constant_map_is_black() -> None:
    flat = Grid((3, 4), np.eye(3))
    shown, low, high = picture(plane_through(np.zeros((3, 4), bool), flat), np.zeros((3, 4)), 0.0)
    assert (low, high) == (0.0, 0.0)
    assert not shown.any()
