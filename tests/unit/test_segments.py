"""Segments at several scales, and the greedy order, against plain programs."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from voxplain.regions.segments import (
    SCALES_2D,
    SCALES_3D,
    Segments,
    most_telling_first,
    multi_scale,
)


def masks_of(segments: Segments) -> NDArray[np.bool_]:
    return segments.members.toarray().reshape(-1, *segments.shape) > 0


def segments_of(masks: NDArray[np.bool_]) -> Segments:
    return Segments.of([np.flatnonzero(mask) for mask in masks], masks.shape[1:])


def smooth(shape: tuple[int, ...], n_channels: int = 1, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    data = np.stack([gaussian_filter(rng.normal(size=shape), 1.5) for _ in range(n_channels)])
    return np.asarray(2 * (data - data.min()) / np.ptp(data) - 1)


def naive(
    masks: NDArray[np.bool_], values: NDArray[np.float64], area: float, least: int
) -> NDArray[np.float64]:
    """The algorithm word by word: every segment's gain anew at every step."""
    found = np.full(values.shape, np.nan)
    covered = np.zeros(values.shape, bool)
    while covered.mean() <= area:
        new = [mask & ~covered for mask in masks]
        gains = [values[part].mean() if part.sum() >= least else -np.inf for part in new]
        if not gains or max(gains) == -np.inf:
            break
        best = int(np.argmax(gains))
        found[new[best]] = gains[best]
        covered |= new[best]
    if not covered.all():
        found[~covered] = values[~covered].mean()
    return found


def random_boxes(rng: np.random.Generator, shape: tuple[int, ...], n: int) -> NDArray[np.bool_]:
    masks = np.zeros((n, *shape), bool)
    for mask in masks:
        ends = [np.sort(rng.choice(length + 1, 2, replace=False)) for length in shape]
        mask[tuple(slice(a, b) for a, b in ends)] = True
    return masks


# -- the order ------------------------------------------------------------------------------
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("shape", [(9, 13), (4, 7, 6)])
@pytest.mark.parametrize(("area", "least"), [(1.0, 1), (1.0, 6), (0.4, 1), (0.0, 3)])
def test_as_the_naive_program(shape: tuple[int, ...], seed: int, area: float, least: int) -> None:
    rng = np.random.default_rng(seed)
    masks = random_boxes(rng, shape, n=40)
    masks[7] = masks[3]  # the same segment at two scales
    values = rng.normal(size=shape)
    found = most_telling_first(segments_of(masks), values, area, least)
    np.testing.assert_allclose(found, naive(masks, values, area, least), rtol=0, atol=1e-12)
    assert found.sum() == pytest.approx(values.sum(), abs=1e-10)


def test_by_hand() -> None:
    """Gains change as segments are covered: {1, 2} has mean 5 at first, 2 alone has 1."""
    values = np.array([[0.0, 9.0, 1.0, 4.0, -2.0, 7.0]])
    segments = Segments.of([np.array([0, 1]), np.array([1, 2]), np.array([3]), np.array([4])],
                           values.shape)  # fmt: skip
    found = most_telling_first(segments, values)
    #                     {1, 2}: 5, {3}: 4, {0}: 0, {4}: -2, in none: 7
    np.testing.assert_array_equal(found, [[0.0, 5.0, 5.0, 4.0, -2.0, 7.0]])


def test_area_ends_the_search() -> None:
    values = np.array([[4.0, 3.0, 2.0, 0.0]])
    segments = Segments.of([np.array([i]) for i in range(4)], values.shape)
    np.testing.assert_array_equal(most_telling_first(segments, values, 0.0), [[4, *[5 / 3] * 3]])
    # a quarter is covered, not more than a quarter: one more
    np.testing.assert_array_equal(most_telling_first(segments, values, 0.25), [[4, 3, 1, 1]])
    np.testing.assert_array_equal(most_telling_first(segments, values, 1.0), values)


def test_small_additions_are_dropped() -> None:
    values = np.array([[5.0, 1.0, 2.0, 3.0]])
    segments = Segments.of([np.array([0]), np.array([0, 1]), np.array([1, 2, 3])], values.shape)
    found = most_telling_first(segments, values, least=2)
    # {0, 1}: 3, then {2, 3}: 2.5; {0} alone is never a step
    np.testing.assert_array_equal(found, [[3, 3, 2.5, 2.5]])


def test_no_segment_is_large_enough() -> None:
    values = np.array([[5.0, 1.0, 3.0]])
    found = most_telling_first(Segments.of([np.array([0])], values.shape), values, least=2)
    np.testing.assert_array_equal(found, [[3.0, 3.0, 3.0]])
    none = Segments.of([], values.shape)
    assert len(none) == 0
    np.testing.assert_array_equal(most_telling_first(none, values), [[3.0, 3.0, 3.0]])


def test_rounding_decides_no_tie() -> None:
    """Of two segments whose sums differ in the last bit the first wins."""
    values = np.array([[0.1, 0.2, 0.3, 0.2, 0.1]])
    one, other = np.array([0, 1, 2]), np.array([2, 3, 4])
    assert values[0, one].sum() > values[0, other].sum()
    found = most_telling_first(Segments.of([other, one], values.shape), values)
    np.testing.assert_allclose(found, [[0.15, 0.15, 0.2, 0.2, 0.2]], rtol=1e-12)
    found = most_telling_first(Segments.of([one, other], values.shape), values)
    np.testing.assert_allclose(found, [[0.2, 0.2, 0.2, 0.15, 0.15]], rtol=1e-12)


# -- the segments ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("shape", "spacing", "n_scales"),
    [((31, 20), (0.7, 1.1), len(SCALES_2D)), ((11, 7, 9), (0.7, 1.1, 2.3), len(SCALES_3D)),
     ((1, 13, 9), (5.0, 1.0, 1.0), len(SCALES_3D)), ((3, 2), (1.0, 1.0), len(SCALES_2D))],
)  # fmt: skip
@pytest.mark.parametrize("n_channels", [1, 2, 5])
def test_each_scale_covers_the_image(
    shape: tuple[int, ...], spacing: tuple[float, ...], n_scales: int, n_channels: int
) -> None:
    segments = multi_scale(smooth(shape, n_channels), spacing)
    masks = masks_of(segments)
    assert masks.shape == (len(segments), *shape)
    assert masks.any(axis=tuple(range(1, masks.ndim))).all()
    assert masks.sum(0).min() >= n_scales


@pytest.mark.parametrize("shape", [(17, 12), (9, 7, 8)])
def test_a_constant_image_has_segments(shape: tuple[int, ...]) -> None:
    masks = masks_of(multi_scale(np.full((2, *shape), -1.0), [1.0] * len(shape)))
    assert masks.any(0).all()


@pytest.mark.parametrize("spacing", [(0.7, 1.1, 2.3), (3.0, 1.0, 1.25), (2.5, 2.6, 0.5)])
def test_dilation_is_a_ball_in_mm(
    spacing: tuple[float, float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each segment is the voxels at most 2.5 mm from one of its label's."""
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 9, (6, 7, 11))
    labels[labels == 4] = 5  # a label that does not occur
    monkeypatch.setattr("skimage.segmentation.slic", lambda *_, **__: labels)
    found = masks_of(multi_scale(np.zeros((1, *labels.shape)), spacing))
    assert len(found) == len(SCALES_3D) * len(np.unique(labels))
    places = np.indices(labels.shape).reshape(3, -1).T * np.asarray(spacing)
    distances = np.linalg.norm(places[:, None] - places, axis=-1)
    for mask, label in zip(found, np.unique(labels), strict=False):
        nearest = distances[:, (labels == label).ravel()].min(1)
        np.testing.assert_array_equal(mask.ravel(), nearest <= 2.5)


def test_supervoxels_follow_the_image_and_not_the_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly one holds voxels in and around a bright block; mm or cm is all one."""
    data = np.full((1, 12, 16, 10), -1.0)
    block = (slice(2, 7), slice(4, 11), slice(3, 8))
    data[(0, *block)] = 1.0
    data += np.random.default_rng(0).normal(0, 0.02, data.shape)
    monkeypatch.setattr("voxplain.regions.segments.DILATION_MM", 0.0)
    masks = masks_of(multi_scale(data, (0.7, 1.1, 2.3)))
    shares = np.array([(data[0][mask] > 0).mean() for mask in masks])
    assert ((shares > 0) & (shares < 1)).mean() < 0.01  # those too small to stand alone
    again = masks_of(multi_scale(data, (7.0, 11.0, 23.0)))
    np.testing.assert_array_equal(masks, again)
    assert sum(SCALES_3D) / 2 < len(masks) < 2 * sum(SCALES_3D)


def test_a_bright_disc_is_a_segment() -> None:
    places = np.stack(np.meshgrid(np.arange(90), np.arange(120), indexing="ij"), -1)
    radius = np.linalg.norm(places - (40, 70), axis=-1)
    data = np.where(radius < 22, 1.0, -1.0)[None]
    found = [m for m in masks_of(multi_scale(data, (1.0, 1.0))) if m[40, 70]]
    assert any(m[radius < 22].all() and not m[radius > 30].any() for m in found)
