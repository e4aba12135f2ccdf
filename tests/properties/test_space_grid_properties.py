"""What holds for every grid and every way from one to another."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from voxplain.space import Grid, resample, resample_contributions, resample_labels
from voxplain.testing.strategies import grids, label_maps, volumes

CODES = {
    2: ["".join(p) for c in itertools.product("LR", "PA") for p in itertools.permutations(c)],
    3: ["".join(p) for c in itertools.product("LR", "PA", "IS") for p in itertools.permutations(c)],
}


@st.composite
def near(draw: st.DrawFn, grid: Grid) -> Grid:
    """A parallel grid that overlaps: turned over, other spacing, moved by part of a voxel."""
    turned = grid.reorient(draw(st.sampled_from(CODES[grid.rank])))
    spacing = [s * draw(st.floats(0.4, 2.5)) for s in turned.spacing]
    moved = turned.affine.copy()
    shift = draw(st.tuples(*[st.floats(-0.4, 0.4)] * grid.rank))
    moved[: grid.rank, grid.rank] = turned.to_world(shift)
    return Grid(turned.shape, moved).respace(spacing)


@pytest.mark.parametrize("rank", [2, 3])
@given(data=st.data())
def test_world_and_index_are_inverse(rank, data):
    grid = data.draw(grids(rank))
    points = np.random.default_rng(0).uniform(-20, 20, (6, rank))
    np.testing.assert_allclose(grid.to_index(grid.to_world(points)), points, atol=1e-9)


@pytest.mark.parametrize("rank", [2, 3])
@given(data=st.data())
def test_reorient_there_and_back(rank, data):
    grid = data.draw(grids(rank))
    letters = data.draw(st.sampled_from(CODES[rank]))
    there = grid.reorient(letters)
    assert there.orientation == letters
    back = there.reorient(grid.orientation)
    assert back.shape == grid.shape
    np.testing.assert_allclose(back.affine, grid.affine, atol=1e-9)
    ours, theirs = grid.to_world(grid.corners()), there.to_world(there.corners())
    distance = np.linalg.norm(ours[:, None] - theirs[None], axis=-1)
    assert distance.min(axis=0).max() < 1e-9
    assert distance.min(axis=1).max() < 1e-9


@pytest.mark.parametrize("rank", [2, 3])
@given(data=st.data())
def test_respace_keeps_the_extent(rank, data):
    grid = data.draw(grids(rank))
    spacing = data.draw(st.tuples(*[st.floats(0.3, 4)] * rank))
    other = grid.respace(spacing)
    np.testing.assert_allclose(other.spacing, spacing, rtol=1e-9)
    np.testing.assert_allclose(
        other.to_world([-0.5] * rank), grid.to_world([-0.5] * rank), atol=1e-9
    )
    extent = np.multiply(grid.shape, grid.spacing)
    assert (np.abs(np.multiply(other.shape, spacing) - extent) <= spacing).all()


@pytest.mark.parametrize("rank", [2, 3])
@settings(max_examples=50)
@given(data=st.data())
def test_resampling_commutes_with_turning_the_patient_s_array_over(rank, data):
    volume = data.draw(volumes(rank))
    to = data.draw(near(volume.grid))
    turned = resample(volume, volume.grid.reorient(data.draw(st.sampled_from(CODES[rank]))))
    np.testing.assert_allclose(
        resample(turned, to).data, resample(volume, to).data, rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("rank", [2, 3])
@settings(max_examples=50)
@given(data=st.data())
def test_turning_over_and_back_is_exact(rank, data):
    volume = data.draw(volumes(rank))
    labels = data.draw(label_maps(rank))
    letters = data.draw(st.sampled_from(CODES[rank]))
    back = resample(resample(volume, volume.grid.reorient(letters)), volume.grid)
    np.testing.assert_array_equal(back.data, volume.data)
    turned = resample_labels(labels, labels.grid.reorient(letters))
    np.testing.assert_array_equal(resample_labels(turned, labels.grid).layers, labels.layers)
    for name in labels.region_names:
        assert turned.mask(name).sum() == labels.mask(name).sum()


@pytest.mark.parametrize("rank", [2, 3])
@settings(max_examples=50)
@given(data=st.data())
def test_contributions_keep_their_sum_and_sign(rank, data):
    volume = data.draw(volumes(rank))
    values = volume.data.astype(np.float64)
    to = data.draw(near(volume.grid))
    moved = resample_contributions(values, volume.grid, to)
    axes = tuple(range(1, rank + 1))
    np.testing.assert_allclose(moved.sum(axis=axes), values.sum(axis=axes), rtol=1e-11, atol=1e-11)
    assert (resample_contributions(np.abs(values), volume.grid, to) >= 0).all()
    single = resample_contributions(volume.data, volume.grid, to)
    np.testing.assert_allclose(single, moved, rtol=1e-6, atol=1e-6)


@settings(max_examples=50)
@given(data=st.data())
def test_resampled_values_stay_in_the_image_s_range(data):
    volume = data.draw(volumes(3))
    got = resample(volume, data.draw(near(volume.grid)))
    slack = 1e-5
    for channel, source in zip(got.data, volume.data, strict=True):
        assert channel.min() >= source.min() - slack
        assert channel.max() <= source.max() + slack
