"""Resampling: closed forms on affine functions, exact copies, sums that are kept."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from voxplain.errors import GridError, ImageError
from voxplain.space import (
    Grid,
    LabelMap,
    Volume,
    above,
    best_class,
    resample,
    resample_contributions,
    resample_labels,
)
from voxplain.testing import phantoms
from voxplain.testing.phantoms import oblique_grid


def plane(grid: Grid) -> np.ndarray:
    """A linear function of position in mm, at every voxel centre."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in grid.shape], indexing="ij"), axis=-1)
    return grid.to_world(index) @ np.array([1.0, -2.0, 0.5])[: grid.rank] + 3.0


def interior(inner: Grid, outer: Grid) -> np.ndarray:
    """Which voxel centres of `inner` lie between the outermost voxel centres of `outer`."""
    index = np.stack(np.meshgrid(*[np.arange(n) for n in inner.shape], indexing="ij"), axis=-1)
    at = outer.to_index(inner.to_world(index))
    return ((at >= 0) & (at <= np.array(outer.shape) - 1)).all(axis=-1)


@pytest.mark.parametrize("factor", [0.6, 1.7])
@pytest.mark.parametrize("letters", ["ILP", "RAS", "PL", "RA"])
def test_a_linear_image_stays_linear(letters, factor):
    rank = len(letters)
    grid = oblique_grid((9, 7, 11)[:rank], (0.7, 1.1, 2.3)[:rank])
    to = grid.reorient(letters)
    to = to.respace([s * factor for s in to.spacing])
    got = resample(Volume(plane(grid)[None], grid), to)
    assert got.grid == to
    inside = interior(to, grid)
    assert inside.sum() > 10
    np.testing.assert_allclose(got.data[0][inside], plane(to)[inside], atol=1e-9)


def test_a_rotated_grid_samples_the_same_function():
    grid = oblique_grid((13, 12, 11), (1.0, 1.1, 1.2), seed=0)
    turned = oblique_grid((6, 5, 7), (1.0, 0.9, 0.7), seed=3)
    shift = np.eye(4)
    middle = grid.to_world(np.array([6, 5.5, 5])) - turned.to_world(np.array([2.5, 2, 3]))
    shift[:3, 3] = middle
    turned = Grid(turned.shape, shift @ turned.affine)
    got = resample(Volume(plane(grid)[None], grid), turned)
    assert interior(turned, grid).all()
    np.testing.assert_allclose(got.data[0], plane(turned), atol=1e-9)


@pytest.mark.parametrize("order", [1, 3])
def test_interpolation_agrees_with_scipy_on_noise(order):
    grid = oblique_grid((9, 7, 11))
    to = grid.reorient("PIR").respace((0.9, 1.7, 1.3))
    volume = Volume(np.random.default_rng(0).normal(size=(1, *grid.shape)), grid)
    matrix = np.linalg.inv(grid.affine) @ to.affine
    expected = ndimage.affine_transform(
        volume.data[0], matrix, output_shape=to.shape, order=order, mode="nearest"
    )
    np.testing.assert_allclose(resample(volume, to, order=order).data[0], expected, atol=1e-9)


def test_exact_copy_when_axes_differ_by_order_direction_and_whole_voxels():
    volume = phantoms.volume(n_channels=2)
    to = volume.grid.crop((-1, 2, 0), (7, 4, 11)).reorient("SLA")
    for order in (0, 1, 3):
        got = resample(volume, to, order=order, fill=(-5.0, 9.0))
        by_hand = np.full((2, 7, 4, 11), [[[[-5.0]]], [[[9.0]]]], np.float32)
        by_hand[:, 1:6] = volume.data[:, :, 2:6]
        by_hand = by_hand[:, ::-1].transpose(0, 3, 1, 2)
        np.testing.assert_array_equal(got.data, by_hand)
        assert got.data.dtype == np.float32


def test_float32_headers_still_copy_exactly():
    volume = phantoms.volume()
    noisy = Grid(volume.grid.shape, volume.grid.affine.astype(np.float32))
    assert noisy != volume.grid
    np.testing.assert_array_equal(resample(volume, noisy).data, volume.data)


def test_default_fill_is_each_channel_s_minimum():
    volume = phantoms.volume(n_channels=2)
    got = resample(volume, volume.grid.crop((0, 0, -3), (5, 7, 14)))
    for channel in range(2):
        assert (got.data[channel, ..., :3] == volume.data[channel].min()).all()
        assert (got.data[channel, ..., 3:] == volume.data[channel]).all()


def test_the_outermost_voxels_reach_to_their_faces():
    grid = Grid((4, 3, 2), np.diag([2.0, 2.0, 2.0, 1.0]))
    volume = Volume(np.arange(24.0).reshape(1, 4, 3, 2) + 1, grid)
    finer = grid.respace((1.0, 2.0, 2.0))
    got = resample(volume, finer, fill=-100.0)
    assert got.data.min() == 1.0  # no fill within the faces
    np.testing.assert_allclose(got.data[0, :, 0, 0], [1, 2.5, 5.5, 8.5, 11.5, 14.5, 17.5, 19])


def test_fill_outside_on_a_rotated_grid():
    volume = phantoms.volume(oblique_grid((6, 6, 6), (1, 1, 1)))
    around = oblique_grid((20, 20, 20), (1, 1, 1), seed=2)
    shift = np.eye(4)
    shift[:3, 3] = volume.grid.to_world([2.5] * 3) - around.to_world([9.5] * 3)
    around = Grid(around.shape, shift @ around.affine)
    got = resample(volume, around, fill=-7.0)
    index = np.argwhere(np.ones(around.shape, bool))
    at = volume.grid.to_index(around.to_world(index))
    outside = ((at < -0.5) | (at > 5.5)).any(axis=-1).reshape(around.shape)
    np.testing.assert_array_equal(got.data[0] == -7.0, outside)
    assert not outside.all()


def test_fill_must_fit_the_channels():
    with pytest.raises(ImageError, match="2 channels and 3 values"):
        resample(phantoms.volume(n_channels=2), oblique_grid(), fill=[1, 2, 3])


def test_order_out_of_range():
    with pytest.raises(GridError, match="0 to 5, got 6"):
        resample(phantoms.volume(), oblique_grid(), order=6)


def test_like_may_be_anything_with_a_grid():
    volume, labels = phantoms.volume(), phantoms.labels()
    assert resample(volume, like=labels).grid == labels.grid
    assert resample_labels(labels, like=volume).grid == volume.grid


def test_nearest_ties_are_regular():
    grid = Grid((8, 3, 2), np.eye(4))
    labels = LabelMap.of(
        np.arange(8, dtype=np.uint8)[:, None, None] + np.zeros((8, 3, 2), "u1"), grid
    )
    half = grid.respace((2.0, 1.0, 1.0))
    np.testing.assert_array_equal(resample_labels(labels, half).layers[0, :, 0, 0], [1, 3, 5, 7])


def test_labels_there_and_back():
    labels = phantoms.labels()
    fine = labels.grid.reorient("LPS").respace((0.35, 0.55, 1.15))
    there = resample_labels(labels, fine)
    assert there.layers.dtype == labels.layers.dtype
    assert there.names == labels.names
    # each voxel became eight of equal label
    assert [there.mask(i).sum() for i in (1, 2, 3)] == [8 * labels.mask(i).sum() for i in (1, 2, 3)]
    back = resample_labels(there, labels.grid)
    np.testing.assert_array_equal(back.layers, labels.layers)


def test_labels_outside_are_background():
    labels = LabelMap.of(np.ones((5, 7, 11), np.uint8), oblique_grid())
    got = resample_labels(labels, labels.grid.crop((-2, 0, 0), (9, 7, 11)))
    np.testing.assert_array_equal(got.layers[0, :, 0, 0], [0, 0, 1, 1, 1, 1, 1, 0, 0])


def far(grid: Grid) -> Grid:
    return grid.crop((50,) * grid.rank, grid.shape)


def test_no_overlap_names_both_grids():
    grid = oblique_grid()
    logits = np.zeros((2, *grid.shape), np.float32)
    message = r"do not overlap in space: shape \(5, 7, 11\).* against shape \(5, 7, 11\).* check"
    with pytest.raises(GridError, match="label map.*" + message):
        resample_labels(phantoms.labels(), far(grid))
    with pytest.raises(GridError, match=message):
        resample(phantoms.volume(), far(grid))
    with pytest.raises(GridError, match=message):
        resample_contributions(logits, grid, far(grid))
    with pytest.raises(GridError, match=message):
        best_class(logits, grid, far(grid))
    with pytest.raises(GridError, match=message):  # rotated against each other
        resample(phantoms.volume(), far(oblique_grid(seed=4)))


def test_touching_faces_are_no_overlap():
    grid = Grid((4, 4, 4), np.eye(4))
    with pytest.raises(GridError, match="do not overlap"):
        resample_contributions(np.ones((1, 4, 4, 4)), grid, grid.crop((4, 0, 0), (4, 4, 4)))


def test_ranks_must_agree():
    with pytest.raises(GridError, match="both must be 2D or both 3D"):
        resample(phantoms.volume(), oblique_grid((5, 7), (1, 1)))


def test_contributions_by_hand():
    grid = Grid((3, 2, 1), np.eye(4))
    values = np.array([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]]).reshape(1, 3, 2, 1)
    # two voxels of 1.5 mm over the same 3 mm: the middle voxel is shared in halves
    got = resample_contributions(values, grid, grid.respace((1.5, 1.0, 1.0)))
    np.testing.assert_allclose(got[0, :, :, 0], [[2, 20], [5, 50]])
    # each voxel in halves
    got = resample_contributions(values, grid, grid.respace((0.5, 1.0, 1.0)))
    np.testing.assert_allclose(got[0, :, 0, 0], [0.5, 0.5, 1, 1, 2, 2])
    # what lies outside goes to the nearest boundary voxel
    got = resample_contributions(values, grid, grid.crop((1, 0, 0), (1, 1, 1)))
    np.testing.assert_allclose(got.ravel(), [77])


def test_contributions_that_only_turn_over_are_copied_exactly():
    volume = phantoms.volume(n_channels=2)
    to = volume.grid.reorient("IPR")
    got = resample_contributions(volume.data, volume.grid, to)
    np.testing.assert_array_equal(got, resample(volume, to).data)
    assert got.dtype == np.float32


def test_contributions_stay_at_their_place():
    grid = oblique_grid((9, 7, 11))
    values = np.zeros((1, *grid.shape))
    values[0, 6, 2, 8] = 5.0
    to = grid.reorient("SAL").respace((1.0, 0.8, 1.9))
    got = resample_contributions(values, grid, to)
    where = np.argwhere(got[0])
    centre = (to.to_world(where) * got[0][tuple(where.T)][:, None]).sum(axis=0) / 5
    assert np.abs(grid.to_index(centre) - [6, 2, 8]).max() < 1.0


def test_contributions_refuse_a_rotation_and_a_wrong_shape():
    grid = oblique_grid()
    turned = oblique_grid(seed=1)
    turned = Grid(
        turned.shape,
        np.vstack([np.hstack([turned.affine[:3, :3], grid.affine[:3, 3:]]), [0, 0, 0, 1]]),
    )
    with pytest.raises(GridError, match=r"parallel axes.*rotated"):
        resample_contributions(np.ones((1, *grid.shape)), grid, turned)
    with pytest.raises(GridError, match=r"got \(5, 7, 11\)"):
        resample_contributions(np.ones(grid.shape), grid, grid)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("shape", [(9, 7, 11), (9, 7)])
def test_best_class_is_the_argmax_of_resampled_logits(shape, dtype):
    grid = oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)])
    to = grid.reorient("LSA" if len(shape) == 3 else "PL").respace((0.9,) * len(shape))
    logits = np.random.default_rng(0).normal(size=(4, *shape)).astype(dtype)
    volume = Volume(logits.astype(np.float64), grid)
    matrix = np.linalg.inv(grid.affine) @ to.affine
    resampled = np.stack(
        [
            ndimage.affine_transform(c, matrix, output_shape=to.shape, order=1, mode="nearest")
            for c in volume.data
        ]
    )
    clear = np.diff(np.sort(resampled, axis=0)[-2:], axis=0)[0] > 1e-5
    got = best_class(logits, grid, to)
    assert got.dtype == np.uint8
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(got[clear], resampled.argmax(axis=0)[clear])
    got = above(logits, grid, to, threshold=0.25)
    clear = np.abs(resampled - 0.25) > 1e-5
    np.testing.assert_array_equal(got[clear], (resampled > 0.25)[clear])


def test_best_class_on_one_grid_is_argmax_and_leaves_the_logits():
    grid = oblique_grid()
    logits = np.random.default_rng(0).integers(0, 3, (5, *grid.shape)).astype(np.float32)
    before = logits.copy()
    np.testing.assert_array_equal(best_class(logits, grid, grid), logits.argmax(axis=0))
    np.testing.assert_array_equal(logits, before)


def test_best_class_goes_on_outside():
    grid = oblique_grid()
    logits = np.zeros((2, *grid.shape), np.float32)
    logits[1, 0] = 1.0
    got = best_class(logits, grid, grid.crop((-3, 0, 0), (8, 7, 11)))
    np.testing.assert_array_equal(got[:, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0])
