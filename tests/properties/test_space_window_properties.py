"""What holds for every window plan."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data.utils import dense_patch_slices
from monai.inferers.utils import _get_scan_interval

from voxplain.space import Box, WindowPlan, WindowSettings
from voxplain.testing.strategies import window_settings_and_shape


@pytest.mark.parametrize(("rank", "max_length"), [(2, 14), (3, 6)])
@settings(max_examples=40)
@given(data=st.data())
def test_every_voxel_is_covered_and_weights_sum_to_one(rank, max_length, data):
    window, shape = data.draw(window_settings_and_shape(rank, max_length=max_length))
    plan = WindowPlan(shape, window)
    whole = Box.whole(plan.padded_shape)
    shares = np.zeros(plan.padded_shape)
    for index in range(len(plan)):
        box = plan.box(index)
        assert box.intersect(whole) == box  # no window reaches outside
        shares[box.slices] += plan.weight / plan.normaliser(box)
    np.testing.assert_allclose(shares, 1.0, rtol=1e-12)
    assert (plan.weight > 0).all()
    if window.scheme == "monai":  # nnU-Net visits a place twice if its stride is below 1 voxel
        assert list(plan.starts) == sorted(set(plan.starts))


@pytest.mark.parametrize("rank", [2, 3])
@given(data=st.data())
def test_positions_are_those_of_monai(rank, data):
    size = data.draw(st.tuples(*[st.integers(1, 30)] * rank))
    shape = tuple(n + data.draw(st.integers(0, 2 * n)) for n in size)
    overlap = data.draw(st.floats(0, 0.8))
    stride = _get_scan_interval(shape, size, rank, (overlap,) * rank)
    expected = dense_patch_slices(shape, size, stride, return_slice=False)
    plan = WindowPlan(shape, WindowSettings(size, overlap, blend="constant"))
    assert plan.starts == tuple(tuple(int(start) for start, _ in axes) for axes in expected)


@settings(max_examples=40)
@given(data=st.data())
def test_touching_and_normaliser_agree_with_brute_force(data):
    window, shape = data.draw(window_settings_and_shape(2, max_length=12))
    plan = WindowPlan(shape, window)
    start = data.draw(st.tuples(*[st.integers(0, n - 1) for n in plan.padded_shape]))
    stop = tuple(
        data.draw(st.integers(a + 1, n)) for a, n in zip(start, plan.padded_shape, strict=True)
    )
    box = Box(start, stop)
    touching = [i for i in range(len(plan)) if plan.box(i).intersect(box)]
    assert plan.touching(box) == touching
    total = np.zeros(plan.padded_shape)
    for index in range(len(plan)):
        total[plan.box(index).slices] += plan.weight
    np.testing.assert_allclose(plan.normaliser(box), total[box.slices], rtol=1e-12)


@given(data=st.data())
def test_the_volume_lies_in_the_middle_of_its_padding(data):
    window, shape = data.draw(window_settings_and_shape(3))
    plan = WindowPlan(shape, window)
    inner = plan.inner()
    assert inner.shape == shape
    for before, n, padded, length in zip(
        plan.pad_before, shape, plan.padded_shape, window.size, strict=True
    ):
        after = padded - n - before
        assert padded == max(n, length)
        assert after - before in (0, 1)
