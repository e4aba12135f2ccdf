"""Boxes of voxels."""

from __future__ import annotations

import numpy as np

from voxplain.space import Box


def test_around_a_mask():
    mask = np.zeros((5, 7, 11), bool)
    assert Box.around(mask) is None
    mask[1, 2, 9] = mask[3, 2, 4] = True
    assert Box.around(mask) == Box((1, 2, 4), (4, 3, 10))


def test_algebra():
    a, b = Box((0, 2), (4, 6)), Box((3, 0), (9, 3))
    assert a.intersect(b) == Box((3, 2), (4, 3))
    assert a.intersect(b.shift((1, 0))) is None  # faces touch, no voxel is shared
    assert a.union(b) == Box((0, 0), (9, 6))
    assert a.shape == (4, 4)
    assert a.n_voxels == 16
    assert Box((4, 0), (2, 3)).shape == (0, 3)


def test_within_indexes_an_array_over_the_outer_box():
    outer, inner = Box((2, 3), (8, 9)), Box((4, 3), (5, 6))
    array = np.zeros(outer.shape)
    array[inner.within(outer)] = 1
    assert array.sum() == 3
    assert array[2, :3].all()
