"""Masks from repairs: the strict threshold, and the filters against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage
from skimage.measure import label, regionprops
from skimage.morphology import closing, footprint_rectangle, opening, remove_small_objects

from voxplain.counterfactual.config import PostFilterConfig
from voxplain.counterfactual.mask import change, mask_of
from voxplain.errors import GridError

NONE = PostFilterConfig()


def clouds(n: int = 6, seed: int = 0) -> np.ndarray:
    """Smooth random changes with many components, some at the border."""
    noise = np.random.default_rng(seed).normal(size=(n, 23, 31))
    smooth = ndimage.gaussian_filter(noise, (0, 1.2, 1.2))
    return (smooth - smooth.min()) / np.ptp(smooth)


def test_change_is_half_the_distance():
    x, repaired = np.float32([[-1, 0.5, 1]]), np.float32([[1, 0.5, 0.9]])
    np.testing.assert_allclose(change(x, repaired), [[1, 0, 0.05]], atol=1e-7)
    with pytest.raises(GridError, match="shape"):
        change(x, x.T)


def test_the_threshold_itself_is_not_in_the_mask():
    found = mask_of(np.array([[0.25, np.nextafter(0.25, 1), 0.0]]), 0.25, NONE)
    np.testing.assert_array_equal(found, [[False, True, False]])


def test_opening_and_closing_are_those_of_scikit_image():
    square = footprint_rectangle((3, 3))
    values = clouds()
    above = values > 0.5
    found = mask_of(values, 0.5, PostFilterConfig(open_close=True))
    for one, mask in zip(found, above, strict=True):
        opened = opening(mask.astype(np.uint8), square, mode="ignore")
        np.testing.assert_array_equal(one, closing(opened, square, mode="ignore").astype(bool))
    assert (found != above).any()


def test_components_are_those_of_scikit_image():
    values = clouds()
    above = values > 0.55
    small = mask_of(values, 0.55, PostFilterConfig(min_pixels=6))
    largest = mask_of(values, 0.55, PostFilterConfig(largest_only=True))
    for i, one in enumerate(above):
        np.testing.assert_array_equal(
            small[i], remove_small_objects(one, max_size=5, connectivity=2)
        )
        parts = regionprops(label(one, connectivity=2))
        coords = max(parts, key=lambda part: part.area).coords
        expected = np.zeros_like(one)
        expected[tuple(coords.T)] = True
        np.testing.assert_array_equal(largest[i], expected)
    assert 0 < largest.sum() < small.sum() < above.sum()


def test_slices_are_filtered_alone_and_empty_stays_empty():
    values = clouds(4)
    values[2] = 0
    post = PostFilterConfig(open_close=True, min_pixels=5, largest_only=True)
    together = mask_of(values, 0.5, post)
    for one, value in zip(together, values, strict=True):
        np.testing.assert_array_equal(one, mask_of(value, 0.5, post))
    assert not together[2].any()
    assert together[[0, 1, 3]].any(axis=(1, 2)).all()


def test_a_block_at_the_border_and_corner_neighbours_survive():
    values = np.zeros((9, 9))
    values[:4, :4] = values[4, 4] = 1
    assert mask_of(values, 0.5, PostFilterConfig(largest_only=True)).sum() == 17
    cleaned = mask_of(values, 0.5, PostFilterConfig(open_close=True))
    assert cleaned.sum() == 16
    assert cleaned[:4, :4].all()


def test_other_shapes_are_refused():
    with pytest.raises(GridError, match="rows, columns"):
        mask_of(np.zeros((1, 1, 3, 3)), 0.5, NONE)
