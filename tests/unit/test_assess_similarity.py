"""Similarity of two maps: closed forms, scikit-image, SciPy, PAIR saliency, and Arun's numbers."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from skimage.metrics import structural_similarity

from voxplain.assess import correlation, legacy_map, top_overlap
from voxplain.assess import ssim as ss
from voxplain.assess.correlation import pearson, spearman
from voxplain.assess.legacy_map import legacy_ssim
from voxplain.assess.ssim import map_ssim, normalised, ssim
from voxplain.errors import GridError, MethodError
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP

SHAPES = [(8, 9, 13), (17, 23), (1, 12, 9)]
OVERLAP = top_overlap.top_overlap
ALL = {
    ss.METRIC: map_ssim,
    legacy_map.METRIC: legacy_ssim,
    correlation.PEARSON: pearson,
    correlation.SPEARMAN: spearman,
    top_overlap.METRIC: OVERLAP,
}


def pair_of(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    a = rng.random(shape)
    return a, 0.6 * a + 0.4 * rng.random(shape)


# -- all of them ----------------------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_equal_maps_have_one_and_order_of_the_two_is_none(metric: Any, shape: Any) -> None:
    function, (a, b) = ALL[metric], pair_of(shape)
    assert function(a, a) == (pytest.approx(1.0, abs=1e-12), ())
    assert function(a, 3 * a).value == pytest.approx(1.0, abs=1e-12)
    found = function(a, b)
    assert found.value == pytest.approx(function(b, a).value, abs=1e-12)
    assert found.flags == ()
    assert 0.1 < found.value < 0.99


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_depth_one_changes_nothing(metric: Any) -> None:
    """Acceptance test 11."""
    a, b = pair_of((11, 17))
    wanted = ALL[metric](a, b)
    for axis in range(3):
        assert ALL[metric](np.expand_dims(a, axis), np.expand_dims(b, axis)) == wanted


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
@pytest.mark.parametrize(("level", "flag"), [(0.0, EMPTY_MAP), (0.7, CONSTANT_MAP)])
def test_maps_of_one_value_are_flagged(metric: Any, level: float, flag: str) -> None:
    a, flat = pair_of((9, 11))[0], np.full((9, 11), level)
    found = [ALL[metric](a, flat), ALL[metric](flat, a), ALL[metric](flat, flat)]
    assert [one.flags for one in found] == [(flag,)] * 3
    if metric is ss.METRIC:
        assert found[2].value == pytest.approx(1.0, abs=1e-12)
        assert all(math.isfinite(one.value) for one in found)
    else:
        assert all(math.isnan(one.value) for one in found)
    both = ALL[metric](np.zeros((9, 11)), np.ones((9, 11)))
    assert both.flags == (EMPTY_MAP, CONSTANT_MAP)


@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_what_cannot_be_compared_is_refused(metric: Any) -> None:
    a, b = pair_of((9, 11))
    with pytest.raises(GridError, match=r"shape \(9, 11\) against \(11, 9\)"):
        ALL[metric](a, b.T)
    with pytest.raises(MethodError, match="finite, got nan"):
        ALL[metric](a, np.where(b > 0.5, np.nan, b))


# -- SSIM -----------------------------------------------------------------------------------
@pytest.mark.parametrize("data_range", [1.0, 2.0, 255.0])
def test_one_window_is_the_formula(data_range: float) -> None:
    a, b = pair_of((3, 3, 3), 1)
    x, y, c1, c2 = a.ravel(), b.ravel(), (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    cov = np.cov(x, y)
    wanted = (2 * x.mean() * y.mean() + c1) * (2 * cov[0, 1] + c2) / (
        (x.mean() ** 2 + y.mean() ** 2 + c1) * (cov[0, 0] + cov[1, 1] + c2)
    )  # fmt: skip
    assert ssim(a, b, data_range=data_range, window=3).value == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize(("shape", "fitting"), [((8, 9, 13), 7), ((4, 9, 13), 3), ((6, 20), 5)])
def test_the_window_shrinks_to_the_shortest_axis(shape: Any, fitting: int) -> None:
    a, b = pair_of(shape)
    wanted = structural_similarity(a, b, win_size=fitting, data_range=1.0)
    assert ssim(a, b, data_range=1.0).value == wanted
    assert ssim(a, b, data_range=1.0, window=3).value == structural_similarity(
        a, b, win_size=3, data_range=1.0
    )


def test_the_range_must_be_given() -> None:
    """Acceptance test 5."""
    a, b = pair_of((9, 11))
    with pytest.raises(TypeError, match="data_range"):
        ssim(a, b)  # type: ignore[call-arg]
    for wrong in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(MethodError, match="data_range is positive"):
            ssim(a, b, data_range=wrong)


def test_a_wider_range_makes_noise_more_alike() -> None:
    """Acceptance test 5; C2 / (2σ² + C2) on average, 0.009 and 0.024 in the specification's draw.

    One draw of 320² voxels has a standard deviation of 0.003, which both ranges share.
    """
    rng = np.random.default_rng(0)
    found = np.empty((8, 3))
    for row in found:
        a, b = rng.random((2, 320, 320))
        row[:2] = [ssim(a, b, data_range=r).value for r in (1.0, 2.0)]
        row[2] = legacy_ssim(a, b).value
    expected = [(0.03 * r) ** 2 / (2 / 12 + (0.03 * r) ** 2) for r in (1.0, 2.0)]
    np.testing.assert_allclose(found[:, :2].mean(0), expected, atol=3 * 0.003 / 8**0.5)
    np.testing.assert_allclose(found[:, 1] - found[:, 0], 0.024 - 0.009, atol=0.001)
    np.testing.assert_allclose(found[:, 2], found[:, 1], atol=1e-3)  # 99 % of noise is 0.99


def test_an_empty_map_is_like_a_blob_and_flagged() -> None:
    """Acceptance test 6."""
    blob = np.zeros((320, 320))
    blob[100:110, 200:210] = 5.0
    found = map_ssim(np.zeros_like(blob), blob)
    assert found.value == pytest.approx(0.997, abs=5e-4)
    assert found.flags == (EMPTY_MAP,)
    assert math.isnan(spearman(np.zeros_like(blob), blob).value)


@pytest.mark.parametrize(
    ("shape", "window", "message"),
    [
        ((9, 9), 4, "window is odd and at least 3 voxels, got 4"),
        ((9, 9), 1, "got 1"),
        ((2, 9, 9), 7, r"3 voxels along each axis .* got \(2, 9, 9\)"),
        ((1, 1), 7, r"got \(1, 1\)"),
    ],
)
def test_windows_that_cannot_be_are_refused(shape: Any, window: int, message: str) -> None:
    a, b = pair_of(shape)
    with pytest.raises(MethodError, match=message):
        ssim(a, b, data_range=1.0, window=window)


def test_maps_are_divided_by_their_largest_value() -> None:
    a = pair_of((5, 7))[0] * 1e-5
    np.testing.assert_array_equal(normalised(a), a / a.max())
    assert not normalised(np.zeros((5, 7))).any()
    assert normalised(a.astype(np.float32)).dtype == np.float64
    with pytest.raises(MethodError, match="at least 0"):
        normalised(a - a.mean())


# -- correlation ----------------------------------------------------------------------------
@given(seed=st.integers(0, 50), levels=st.integers(2, 9))
def test_scipy_agrees_also_on_ties(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(-levels, levels, (2, 6, 5, 4)).astype(float)
    a[0, 0, 0], b[0, 0, 0] = -20, 20
    x, y = a.ravel(), b.ravel()
    assert spearman(a, b).value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert pearson(a, b).value == pytest.approx(stats.pearsonr(x, y).statistic, abs=1e-12)


def test_correlation_of_a_few_voxels_by_hand() -> None:
    a, b = np.array([[1.0, 2.0], [3.0, 10.0]]), np.array([[1.0, 3.0], [2.0, 4.0]])
    assert spearman(a, b).value == pytest.approx(0.8, abs=1e-15)  # 1 − 6·2/(4·15)
    assert pearson(a, b).value == pytest.approx(13 / math.sqrt(50 * 5), abs=1e-15)
    assert spearman(a, a**3).value == 1.0
    assert pearson(a, -a).value == -1.0


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e300])
def test_no_unit_is_too_small_or_large(scale: float) -> None:
    a, b = pair_of((9, 11))
    for function in (pearson, spearman):
        assert function(a * scale, b).value == pytest.approx(function(a, b).value, rel=1e-12)


# -- overlap of the highest voxels -------------------------------------------------------------
def test_overlap_without_ties_counts_common_voxels() -> None:
    a, b = pair_of((10, 20), 4)
    order = [set(np.argsort(-m.ravel())[:10]) for m in (a, b)]
    assert 0 < len(order[0] & order[1]) < 10
    assert OVERLAP(a, b).value == len(order[0] & order[1]) / 10
    assert OVERLAP(a, -a).value == 0.0
    assert OVERLAP(a, b, share=1.0).value == 1.0
    assert OVERLAP(a, a, share=1e-9).value == 1.0  # one voxel


@pytest.mark.parametrize(
    ("a", "b", "value"),
    [
        # k = 2: the three at 1 weigh 2/3 each
        ([1, 1, 1, 0, 0], [5, 4, 3, 2, 1], 2 / 3),
        ([1, 1, 1, 0, 0], [1, 2, 5, 4, 3], 1 / 3),
        # one above, one of four zeros
        ([9, 0, 0, 0, 0], [5, 4, 3, 2, 1], (1 + 1 / 4) / 2),
        ([9, 0, 0, 0, 0], [0, 9, 0, 0, 0], (1 / 4 + 1 / 4 + 3 / 4) / 2),
        # both tied: the smaller weight
        ([1, 1, 1, 0, 0], [0, 1, 1, 1, 1], 2 * (1 / 2) / 2),
    ],
)
def test_ties_count_by_share(a: list[float], b: list[float], value: float) -> None:
    assert OVERLAP(a, b, share=0.4).value == pytest.approx(value, abs=1e-15)
    assert OVERLAP(a[::-1], b[::-1], share=0.4).value == pytest.approx(value, abs=1e-15)


def test_maps_that_have_nothing_in_common_overlap_by_their_share() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.random((2, 50, 60, 70))
    assert OVERLAP(a, b).value == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("share", [0.0, -1.0, 1.1, math.nan])
def test_the_share_is_checked(share: float) -> None:
    with pytest.raises(MethodError, match=r"share is in \(0, 1\]"):
        OVERLAP(*pair_of((5, 6)), share=share)


# -- as published -------------------------------------------------------------------------------
@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_legacy_map_is_that_of_saliency(n_channels: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from saliency.core.visualization import VisualizeImageGrayscale
    values = np.random.default_rng(2).normal(size=(n_channels, 30, 41)) ** 3
    found = legacy_map.legacy_map(values)
    np.testing.assert_array_equal(found, VisualizeImageGrayscale(np.moveaxis(values, 0, -1)))
    assert np.count_nonzero(found == 1) == 13  # one in a hundred of 1230
    volume = values.reshape(n_channels, 5, 6, 41)
    np.testing.assert_array_equal(legacy_map.legacy_map(volume), found.reshape(5, 6, 41))


def test_the_legacy_map_by_hand() -> None:
    values = np.zeros((2, 101))
    values[0], values[1, :50] = np.arange(101.0), -1.0
    found = legacy_map.legacy_map(values)  # V: 1 … 50, 50, 51 … 100; percentile 99
    np.testing.assert_allclose(found[[0, 49, 50, 99, 100]], [0, 49 / 98, 49 / 98, 1, 1])


def test_legacy_ssim_is_what_they_computed() -> None:
    a, b = (m**4 for m in pair_of((40, 30), 3))
    shown = [legacy_map.legacy_map(m[None]) for m in (a, b)]
    assert legacy_ssim(a, b).value == structural_similarity(*shown, win_size=7, data_range=2.0)


def test_a_map_that_is_flat_but_for_a_hundredth_has_no_legacy_value() -> None:
    a, sparse = pair_of((20, 30))[0], np.zeros((20, 30))
    sparse[3, 4:7] = 2.0
    shown = legacy_map.legacy_map(sparse[None])
    assert np.isnan(shown).sum() == 597
    assert (shown[3, 4:7] == 1).all()
    found = legacy_ssim(a, sparse)
    assert math.isnan(found.value)
    assert found.flags == (CONSTANT_MAP,)
    with pytest.raises(MethodError, match=r"\(n_channels, \*shape\), got the shape \(5,\)"):
        legacy_map.legacy_map(np.ones(5))
