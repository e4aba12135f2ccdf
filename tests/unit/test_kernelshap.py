"""Sampled coalitions and weighted least squares on games given by a table of numbers."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from voxplain.attribution.coalitions import all_coalitions, shapley_values
from voxplain.attribution.kernelshap import (
    Sample,
    kernel_values,
    least_samples,
    paired_coalitions,
)
from voxplain.errors import MethodError

seeds = st.integers(0, 2**32 - 1)


@st.composite
def samples(draw: st.DrawFn) -> Sample:
    p = draw(st.integers(5, 11))
    n = 2 * draw(st.integers(least_samples(p) // 2, min(2 ** (p - 1) - 2, 150)))
    return paired_coalitions(p, n, np.random.default_rng(draw(seeds)))


def kernel_mass(p: int) -> NDArray[np.float64]:
    """Mass of all coalitions of size 0 … p, by the kernel (p−1) / (C(p,s) s (p−s))."""
    each = np.array([0, *((p - 1) / (comb(p, s) * s * (p - s)) for s in range(1, p)), 0])
    mass = each * [comb(p, s) for s in range(p + 1)]
    return np.asarray(mass / mass.sum())


def masks_of(sample: Sample) -> NDArray[np.int64]:
    p = sample.coalitions.shape[1]
    return sample.coalitions @ (1 << np.arange(p))


def estimate(
    values: NDArray[np.float64], sample: Sample
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return kernel_values(sample, values[masks_of(sample)], values[0], values[-1])


@given(samples())
def test_coalitions_are_distinct_and_come_with_their_complements(sample: Sample) -> None:
    n, p = sample.coalitions.shape
    masks = masks_of(sample)
    assert len(set(masks.tolist())) == n
    assert set(masks.tolist()) == set((2**p - 1 - masks).tolist())
    group = dict(zip(masks.tolist(), sample.groups.tolist(), strict=True))
    assert all(group[2**p - 1 - mask] == g for mask, g in group.items())
    assert {1 << i for i in range(p)} <= set(masks[sample.is_fixed].tolist())
    sizes = sample.coalitions.sum(axis=1)
    for size in np.unique(sizes[sample.is_fixed]):
        assert np.count_nonzero(sizes == size) == comb(p, size)
    counts = np.unique(sample.groups[~sample.is_fixed], return_counts=True)[1]
    assert len(counts) >= 7
    assert counts.max() - counts.min() <= 2


@given(samples())
def test_weights_are_the_mass_of_the_kernel(sample: Sample) -> None:
    p = sample.coalitions.shape[1]
    sizes, mass = sample.coalitions.sum(axis=1), kernel_mass(p)
    fixed = sample.is_fixed
    for size in range(1, p):
        here = sample.weights[sizes == size]
        if fixed[sizes == size].any():
            np.testing.assert_allclose(here, mass[size] / comb(p, size), rtol=1e-12)
        else:  # a count of pairs is its expectation rounded up or down
            each = sample.weights[~fixed][0]
            # the size in the middle is its own complement's
            assert abs(len(here) * each - mass[size]) < (1 + (2 * size == p)) * each + 1e-12
    assert sample.weights.sum() == pytest.approx(1, abs=1e-12)


def test_outer_sizes_are_enumerated_as_the_budget_grows() -> None:
    rng = np.random.default_rng(0)
    # sizes 2 and 7 hold 72 and 0.4037 of the mass left: (n − 18) · 0.4037 reaches 72 at 196.4
    n_fixed = [np.count_nonzero(paired_coalitions(9, n, rng).is_fixed) for n in (34, 196, 198, 480)]
    assert n_fixed == [18, 18, 90, 258]


def test_a_sample_follows_from_its_generator() -> None:
    one, same, other = (paired_coalitions(9, 60, np.random.default_rng(s)) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.coalitions, same.coalitions)
    np.testing.assert_array_equal(one.groups, same.groups)
    assert (one.coalitions != other.coalitions).any()


def test_every_coalition_of_a_size_is_as_likely() -> None:
    counts = np.zeros(2**6)
    for seed in range(1500):
        sample = paired_coalitions(6, 28, np.random.default_rng(seed))
        counts[masks_of(sample)] += 1
    sizes = all_coalitions(6).sum(axis=1)
    for size in (2, 3, 4):
        share = counts[sizes == size] / counts[sizes == size].sum()
        np.testing.assert_allclose(share, 1 / comb(6, size), rtol=0.2)


@given(samples(), seeds)
def test_an_additive_game_is_exact(sample: Sample, seed: int) -> None:
    p = sample.coalitions.shape[1]
    rng = np.random.default_rng(seed)
    effects, empty = rng.normal(size=(p, 3)), rng.normal(size=3)
    phi, errors = kernel_values(
        sample, empty + sample.coalitions @ effects, empty, empty + effects.sum(axis=0)
    )
    np.testing.assert_allclose(phi, effects, atol=1e-10)
    np.testing.assert_allclose(errors, 0, atol=1e-10)


@given(samples(), seeds)
def test_estimates_share_out_the_gain(sample: Sample, seed: int) -> None:
    p = sample.coalitions.shape[1]
    values = np.random.default_rng(seed).normal(size=(2**p, 2))
    phi, errors = estimate(values, sample)
    np.testing.assert_allclose(phi.sum(axis=0), values[-1] - values[0], atol=1e-10)
    assert np.isfinite(errors).all()
    assert errors.max() > 0


@pytest.mark.parametrize("p", [2, 3, 6])
def test_all_coalitions_with_their_mass_give_the_shapley_values(p: int) -> None:
    values = np.random.default_rng(p).normal(size=(2**p, 3))
    rows = all_coalitions(p)[1:-1]
    sizes = rows.sum(axis=1)
    weights = kernel_mass(p)[sizes] / np.array([comb(p, s) for s in sizes])
    sample = Sample(rows, weights, np.full(len(rows), -1))
    phi, errors = estimate(values, sample)
    np.testing.assert_allclose(phi, shapley_values(values), atol=1e-12)
    assert not errors.any()


# few draws; the usual case; most of the remaining coalitions drawn
@pytest.mark.parametrize("n", [60, 120, 480])
def test_errors_are_what_they_are_reported_to_be(n: int) -> None:
    values = np.random.default_rng(7).normal(size=(2**9, 2))
    found = [
        estimate(values, paired_coalitions(9, n, np.random.default_rng(s))) for s in range(200)
    ]
    phi = np.array([f for f, _ in found])
    reported = np.sqrt(np.mean([e**2 for _, e in found], axis=0))
    spread = phi.std(axis=0)
    ratio = reported / spread
    assert ratio.min() > 0.5
    assert ratio.max() < 2
    assert 0.8 < ratio.mean() < 1.25
    assert (np.abs(phi.mean(axis=0) - shapley_values(values)) < 0.5 * spread).all()


def test_more_samples_are_closer() -> None:
    values = np.random.default_rng(8).normal(size=(2**9, 4))
    wanted = shapley_values(values)
    far, near = (
        np.mean([
            np.abs(estimate(values, paired_coalitions(9, n, np.random.default_rng(s)))[0] - wanted)
            for s in range(20)
        ])
        for n in (60, 240)
    )  # fmt: skip
    assert near < far / 2


def test_hundreds_of_players() -> None:
    p, rng = 300, np.random.default_rng(4)
    sample = paired_coalitions(p, least_samples(p), rng)
    assert least_samples(p) == 616
    assert np.count_nonzero(sample.is_fixed) == 600
    values = sample.coalitions[:, :2].all(axis=1)[:, None].astype(float)  # v = z0 z1
    phi, errors = kernel_values(sample, values, [0.0], [1.0])
    assert np.isfinite(errors).all()
    assert phi.sum() == pytest.approx(1, abs=1e-10)
    assert phi[:2].sum() > 0.5


@pytest.mark.parametrize(("p", "least"), [(1, 0), (2, 2), (4, 14), (5, 26), (6, 28), (100, 216)])
def test_the_least_number_of_samples(p: int, least: int) -> None:
    assert least_samples(p) == least
    rng = np.random.default_rng(0)
    if least > 2:
        with pytest.raises(MethodError, match=f"at least n={least} coalitions, got {least - 2}"):
            paired_coalitions(p, least - 2, rng)
    if p > 4:
        assert len(paired_coalitions(p, least, rng).coalitions) == least


def test_what_cannot_be_sampled() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(MethodError, match=r"fewer than all 30 coalitions of 5 .* got n=30;"):
        paired_coalitions(5, 30, rng)
    with pytest.raises(MethodError, match="n is even, got 27"):
        paired_coalitions(5, 27, rng)
    with pytest.raises(MethodError, match="at least 1 player, got 0"):
        paired_coalitions(0, 8, rng)


def test_arrays_fit_the_sample() -> None:
    sample = paired_coalitions(6, 40, np.random.default_rng(0))
    for shape, empty, full in [((39, 2), 2, 2), ((40, 3), 2, 2), ((40, 2), 2, 3), ((40,), 2, 2)]:
        with pytest.raises(MethodError, match=r"a sample of 40 coalitions needs values \(40, T\)"):
            kernel_values(sample, np.zeros(shape), np.zeros(empty), np.zeros(full))
