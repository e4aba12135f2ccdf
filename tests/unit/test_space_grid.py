"""Grids: what they refuse and the algebra of derived grids."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.errors import GridError
from voxplain.space import Grid
from voxplain.testing.phantoms import oblique_grid


def test_spacing_volume_and_orientation():
    grid = oblique_grid()
    assert grid.spacing == pytest.approx((0.7, 1.1, 2.3))
    assert grid.voxel_mm3 == pytest.approx(0.7 * 1.1 * 2.3)
    assert grid.orientation == "RAS"
    assert grid.n_voxels == 5 * 7 * 11
    flat = oblique_grid((5, 7), (0.7, 1.1))
    assert flat.rank == 2
    assert flat.orientation == "RA"
    assert flat.spacing == pytest.approx((0.7, 1.1))


def test_reorient_to_lps_by_hand():
    grid = Grid((5, 7, 11), np.diag([0.7, 1.1, 2.3, 1.0]))
    turned = grid.reorient("SLP")
    assert turned.shape == (11, 5, 7)
    assert turned.orientation == "SLP"
    np.testing.assert_allclose(turned.to_world([0, 0, 0]), [4 * 0.7, 6 * 1.1, 0.0])
    np.testing.assert_allclose(turned.to_world([1, 2, 3]), [2 * 0.7, 3 * 1.1, 2.3])


def test_crop_may_reach_outside():
    grid = oblique_grid()
    cropped = grid.crop((-2, 1, 3), (4, 4, 4))
    np.testing.assert_allclose(cropped.to_world([2, 0, 0]), grid.to_world([0, 1, 3]))


def test_respace_keeps_the_outer_faces():
    grid = oblique_grid()
    other = grid.respace((1.4, 1.1, 1.15))
    assert other.shape == (2, 7, 22)  # 5 * 0.7 / 1.4 = 2.5, to even
    assert other.spacing == pytest.approx((1.4, 1.1, 1.15))
    np.testing.assert_allclose(other.to_world([-0.5] * 3), grid.to_world([-0.5] * 3))


def test_hash_and_equality_are_exact_and_matches_is_not():
    grid = oblique_grid()
    same = Grid(grid.shape, grid.affine.copy())
    near = Grid(grid.shape, grid.affine + 1e-6 * np.eye(4, k=1) * [[1], [1], [1], [0]])
    assert grid == same
    assert hash(grid) == hash(same)
    assert grid != near
    assert grid.matches(near)
    assert not grid.matches(grid.crop((0, 0, 1), grid.shape))
    assert not grid.matches(grid.crop((0, 0, 0), (5, 7, 10)))


@pytest.mark.parametrize(
    ("shape", "affine", "message"),
    [
        ((5,), np.eye(2), "2 or 3 axes"),
        ((5, 0, 3), np.eye(4), "at least 1"),
        ((5, 7), np.eye(4), r"affine of shape \(3, 3\), got \(4, 4\)"),
        ((5, 7, 11), np.diag([1, np.nan, 1, 1]), "NaN or Inf"),
        ((5, 7, 11), np.zeros((4, 4)) + np.diag([0, 0, 0, 1]), "singular"),
        ((5, 7, 11), [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], "singular"),
        ((5, 7, 11), np.eye(4) + np.eye(4, k=-1), "last row"),
    ],
)
def test_unusable_grids(shape, affine, message):
    with pytest.raises(GridError, match=message):
        Grid(shape, affine)


@pytest.mark.parametrize("orientation", ["", "RA", "RAX", "RRS", "RLS", "RASL"])
def test_reorient_refuses(orientation):
    with pytest.raises(GridError, match="orientation"):
        oblique_grid().reorient(orientation)


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.0, 0.0, 1.0), (1.0, np.nan, 1.0)])
def test_respace_refuses(spacing):
    with pytest.raises(GridError, match="3 positive numbers in mm"):
        oblique_grid().respace(spacing)


def test_describe_names_shape_spacing_orientation():
    assert oblique_grid().describe() == (
        "shape (5, 7, 11), spacing (0.7, 1.1, 2.3) mm, orientation RAS"
    )
