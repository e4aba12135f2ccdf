"""Effective complexity, sparseness and entropy: closed forms, flags, and Quantus."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from voxplain.assess import effective_complexity as ec
from voxplain.assess import entropy as en
from voxplain.assess import sparseness as sp
from voxplain.assess.effective_complexity import effective_complexity
from voxplain.assess.entropy import entropy, normalised_entropy
from voxplain.assess.sparseness import sparseness
from voxplain.errors import MethodError
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, Measured

ALL = {
    ec.METRIC: effective_complexity,
    sp.METRIC: sparseness,
    en.METRIC: entropy,
    en.NORMALISED: normalised_entropy,
}
SHAPES = [(5, 7, 11), (9, 13), (1, 6, 4)]


def maps_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Some zeros, most values small."""
    rng = np.random.default_rng(seed)
    return rng.exponential(size=shape) ** 3 * (rng.random(shape) < 0.7)


# -- closed forms --------------------------------------------------------------------------
@pytest.mark.parametrize("m", [1, 7, 35])
def test_a_block_of_equal_voxels(m: int) -> None:
    scores = np.zeros((5, 7))
    scores.reshape(-1)[:m] = 3.0
    n, flags = scores.size, (CONSTANT_MAP,) if m == 35 else ()
    assert effective_complexity(scores) == (m / n, flags)
    assert sparseness(scores) == (pytest.approx(1 - m / n, abs=1e-15), flags)
    assert entropy(scores) == (pytest.approx(math.log(m), abs=1e-14), flags)
    expected = math.log(m) / math.log(n)
    assert normalised_entropy(scores) == (pytest.approx(expected, abs=1e-14), flags)


def test_the_ramp() -> None:
    """s = 1 … n: Gini (n − 1)/3n; share above a tenth of n."""
    n = 200
    ramp = np.random.default_rng(0).permutation(np.arange(1.0, n + 1)).reshape(4, 5, 10)
    assert sparseness(ramp).value == pytest.approx((n - 1) / (3 * n), rel=1e-13)
    assert effective_complexity(ramp).value == (n - 20) / n  # 20 = 0.1·200 is not above
    assert effective_complexity(ramp, threshold=0.0).value == 1.0
    assert effective_complexity(ramp, threshold=0.999).value == 1 / n


def test_the_gini_index_is_half_the_mean_difference() -> None:
    s = maps_of((4, 9), 3).ravel()
    wanted = np.abs(s[:, None] - s).mean() / (2 * s.mean())
    assert sparseness(s).value == pytest.approx(wanted, rel=1e-12)


def test_the_entropy_of_halves() -> None:
    scores = np.array([[8.0, 4.0, 2.0, 1.0, 1.0, 0.0]])
    assert entropy(scores).value == pytest.approx(1.875 * math.log(2), rel=1e-14)


@pytest.mark.parametrize("function", ALL.values())
@given(scale=st.floats(1e-200, 1e200), seed=st.integers(0, 20))
def test_neither_unit_nor_order_nor_shape_matters(function: Any, scale: float, seed: int) -> None:
    scores = maps_of((4, 3, 5), seed)
    wanted = function(scores).value
    other = np.random.default_rng(seed).permutation(scores.ravel()) * scale
    assert function(other.reshape(1, 60)).value == pytest.approx(wanted, rel=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("metric", ALL, ids=lambda m: m.name)
def test_values_lie_in_the_range(metric: Any, shape: tuple[int, ...]) -> None:
    for power in (0.1, 1, 9):
        found = ALL[metric](maps_of(shape) ** power)
        assert found.flags == ()
        assert metric.low <= found.value <= metric.high


# -- where it is not defined -----------------------------------------------------------------
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("function", ALL.values())
def test_an_empty_map_has_no_value(function: Any, shape: tuple[int, ...]) -> None:
    found = function(np.zeros(shape))
    assert math.isnan(found.value)
    assert found.flags == (EMPTY_MAP,)


def test_a_constant_map_has_the_value_of_its_policy() -> None:
    scores, flags = np.full((3, 4), 0.1), (CONSTANT_MAP,)
    assert effective_complexity(scores) == Measured(1.0, flags)
    assert sparseness(scores) == Measured(0.0, flags)
    assert entropy(scores) == Measured(math.log(12), flags)
    assert normalised_entropy(scores) == Measured(1.0, flags)
    one = normalised_entropy(np.ones((1, 1)))
    assert math.isnan(one.value)
    assert one.flags == flags


@pytest.mark.parametrize("function", ALL.values())
@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0, -0.5], "at least 0, got -0.5"),
        ([1.0, math.nan], "finite, got nan"),
        ([1.0, math.inf], "finite, got 1.0 … inf"),
        ([], "at least one voxel"),
    ],
)
def test_what_is_no_magnitude_is_refused(function: Any, scores: list[float], message: str) -> None:
    with pytest.raises(MethodError, match=message):
        function(scores)


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_the_threshold_is_checked(threshold: float) -> None:
    with pytest.raises(MethodError, match=r"threshold is in \[0, 1\)"):
        effective_complexity([1.0, 2.0], threshold)


# -- Quantus -----------------------------------------------------------------------------------
def quantus_values(name: str, maps: np.ndarray, **settings: Any) -> np.ndarray:
    """Of maps (batch, *shape) that are given, of a model that is not asked."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantus
        import torch

        metric = getattr(quantus, name)(disable_warnings=True, **settings)
        model, label = torch.nn.Identity(), np.zeros(1, int)
        # one by one, for it divides by the largest score of a batch
        batches = maps[:, None, None]
        return np.concatenate([metric(model, m.copy(), label, a_batch=m.copy()) for m in batches])


def test_quantus_agrees_but_for_what_it_adds() -> None:
    maps = np.stack([maps_of((9, 13), seed) for seed in range(4)])
    n = maps[0].size
    counts = quantus_values("EffectiveComplexity", maps, eps=0.1)
    np.testing.assert_array_equal([effective_complexity(m).value * n for m in maps], counts)
    found = quantus_values("Sparseness", maps)
    np.testing.assert_allclose([sparseness(m).value for m in maps], found, rtol=1e-4)
    # the 10⁻⁷ that it adds to s / max s, and no more, is the difference
    moved = [sparseness(m / m.max() + 1e-7).value for m in maps]
    np.testing.assert_allclose(moved, found, rtol=1e-12)
    found = quantus_values("Complexity", maps)
    np.testing.assert_allclose([entropy(m).value for m in maps], found, rtol=1e-8)
