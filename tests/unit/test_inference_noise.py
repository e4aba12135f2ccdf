from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from voxplain.inference.noise import NoiseField
from voxplain.space.box import Box

GOLDEN = [0.9769336, -1.0002563, -0.1845246]
# two blocks of 32 voxels along each axis, around the origin
WHOLE = Box((-5, -3, -2), (34, 36, 33))


def overlap_is_equal(field: NoiseField, one: Box, other: Box) -> bool:
    common = one.intersect(other)
    if common is None:
        return True
    parts = [field.crop(2, 2, box)[(slice(None), *common.within(box))] for box in (one, other)]
    return np.array_equal(*parts)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    start = draw(st.tuples(*[st.integers(-40, 40)] * 3))
    shape = draw(st.tuples(*[st.integers(1, 12)] * 3))
    return Box(start, tuple(a + n for a, n in zip(start, shape, strict=True)))


@given(boxes(), boxes(), st.tuples(*[st.integers(-6, 6)] * 3))
def test_a_voxel_has_one_value_whichever_box_asks(
    one: Box, other: Box, step: tuple[int, int, int]
) -> None:
    field = NoiseField(3, case=8)
    assert overlap_is_equal(field, one, other)
    assert overlap_is_equal(field, one, one.shift(step))


def test_order_and_process_do_not_matter() -> None:
    boxes = [Box((0, 0, 0), (9, 40, 4)), Box((30, 1, 2), (34, 5, 33)), WHOLE]
    forth = [NoiseField(1).crop(0, 2, box) for box in boxes]
    back = [NoiseField(1).crop(0, 2, box) for box in reversed(boxes)]
    assert all(np.array_equal(a, b) for a, b in zip(forth, reversed(back), strict=True))
    # golden: another version or machine draws the same
    np.testing.assert_allclose(
        NoiseField(1, case=2).crop(3, 1, Box((0, 0, 0), (1, 1, 3))).ravel(), GOLDEN, atol=1e-6
    )


def test_fields_differ() -> None:
    box = Box((-1, 0, 0), (4, 5, 6))
    fields = {
        "plain": NoiseField(1).crop(0, 2, box)[0],
        "channel": NoiseField(1).crop(0, 2, box)[1],
        "draw": NoiseField(1).crop(1, 2, box)[0],
        "seed": NoiseField(2).crop(0, 2, box)[0],
        "case": NoiseField(1, case=1).crop(0, 2, box)[0],
        "place": NoiseField(1).crop(0, 2, box.shift((32, 0, 0)))[0],
        "axis": NoiseField(1).crop(0, 2, box.shift((0, 32, 0)))[0],
        "negative": NoiseField(1).crop(0, 2, box.shift((-32, 0, 0)))[0],
    }
    names = list(fields)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            equal = np.isclose(fields[one], fields[other]).mean()
            assert equal < 0.02, (one, other)


def test_more_channels_do_not_change_the_first() -> None:
    box = Box((0, 0, 0), (3, 4, 5))
    assert np.array_equal(NoiseField(1).crop(0, 3, box)[:1], NoiseField(1).crop(0, 1, box))


def test_standard_normal_and_independent() -> None:
    values = NoiseField(5).crop(0, 2, WHOLE)
    assert values.dtype == np.float32
    assert values.shape == (2, *WHOLE.shape)
    n = values.size
    assert abs(values.mean()) < 4 / np.sqrt(n)
    assert abs(values.std() - 1) < 4 / np.sqrt(2 * n)
    assert stats.kstest(values.ravel(), "norm").pvalue > 0.01
    for axis in range(1, 4):
        one, other = np.delete(values, 0, axis), np.delete(values, -1, axis)
        assert abs(np.corrcoef(one.ravel(), other.ravel())[0, 1]) < 4 / np.sqrt(n)
    assert abs(np.corrcoef(values[0].ravel(), values[1].ravel())[0, 1]) < 4 / np.sqrt(n / 2)


@pytest.mark.parametrize("start", [(0, 0), (-3, 30)])
def test_two_axes(start: tuple[int, int]) -> None:
    box = Box(start, (start[0] + 5, start[1] + 6))
    assert NoiseField(1).crop(0, 2, box).shape == (2, 5, 6)
    assert overlap_is_equal_2d(NoiseField(1), box)


def overlap_is_equal_2d(field: NoiseField, box: Box) -> bool:
    larger = Box(tuple(a - 2 for a in box.start), tuple(b + 3 for b in box.stop))
    whole = field.crop(0, 1, larger)
    return np.array_equal(whole[(slice(None), *box.within(larger))], field.crop(0, 1, box))


def test_large_seeds_and_cases_are_taken() -> None:
    box = Box((0, 0, 0), (2, 2, 2))
    seed = 2**64 - 1
    one, other = NoiseField(seed, case=seed), NoiseField(seed, case=seed - 1)
    assert not np.array_equal(one.crop(0, 1, box), other.crop(0, 1, box))
