"""Images: types, channels and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.errors import ImageError
from voxplain.space import Volume
from voxplain.testing import phantoms

GRID = phantoms.oblique_grid()


def test_integers_become_float32_and_float64_stays():
    assert Volume(np.ones((1, *GRID.shape), np.int16), GRID).data.dtype == np.float32
    assert Volume(np.ones((1, *GRID.shape), bool), GRID).data.dtype == np.float32
    assert Volume(np.ones((1, *GRID.shape)), GRID).data.dtype == np.float64


def test_channels_are_named_by_number():
    assert Volume(np.ones((2, *GRID.shape)), GRID).channels == ("channel_0", "channel_1")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_not_finite_is_counted(bad):
    data = np.ones((2, *GRID.shape), np.float32)
    data[1, 2, 3, 4] = data[0, 0, 0, 0] = bad
    with pytest.raises(ImageError, match=f"ct: 2 of {data.size} voxels are NaN or infinite"):
        Volume(data, GRID, name="ct")


def test_opposite_infinities_are_found():
    data = np.ones((1, *GRID.shape), np.float32)
    data[0, 0, 0, :2] = np.inf, -np.inf
    with pytest.raises(ImageError, match="2 of"):
        Volume(data, GRID)


def test_large_finite_values_are_kept():
    data = np.full((1, *GRID.shape), 1e308)  # whose sum overflows
    np.testing.assert_array_equal(Volume(data, GRID).data, data)


@pytest.mark.parametrize(
    ("data", "channels", "message"),
    [
        (np.ones(GRID.shape), (), "must be"),
        (np.ones((1, 5, 7, 12)), (), r"\(1, 5, 7, 12\)"),
        (np.ones((0, *GRID.shape)), (), "must be"),
        (np.ones((2, *GRID.shape)), ("ct",), "2 channels of data, 1 names"),
        (np.ones((1, *GRID.shape), complex), (), "real numbers, got complex128"),
    ],
)
def test_refuses(data, channels, message):
    with pytest.raises(ImageError, match=message):
        Volume(data, GRID, channels)


def test_hash_sees_values_and_place_but_not_memory_order():
    volume = phantoms.volume()
    same = volume.with_data(np.asfortranarray(volume.data))
    assert volume.sha256() == same.sha256()
    assert volume.sha256() != volume.with_data(volume.data + 1).sha256()
    moved = volume.grid.crop((1, 0, 0), volume.grid.shape)
    assert volume.sha256() != volume.with_data(volume.data, moved).sha256()
