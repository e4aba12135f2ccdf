"""Sizes of effects: closed forms, libraries called directly, and what intervals promise."""

import numpy as np
import pytest
from scipy import stats

from voxplain.study import effects
from voxplain.study.lesion_tests import cliffs_delta


@pytest.mark.parametrize("tied", [False, True])
def test_dominance_is_all_pairs_compared(tied: bool) -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0.4, 1, 13), rng.normal(0, 2, 21)
    if tied:
        a, b = a.round(), b.round()
    values = np.concatenate([b[:9], a, b[9:]])
    is_first = np.isin(np.arange(34), np.arange(9, 22))
    found = effects.dominance(values, is_first)
    d = np.sign(a[:, None] - b[None, :])
    delta = d.mean()
    spread = (
        21**2 * ((d.mean(axis=1) - delta) ** 2).sum()
        + 13**2 * ((d.mean(axis=0) - delta) ** 2).sum()
        - ((d - delta) ** 2).sum()
    ) / (13 * 21 * 12 * 20)
    assert found.delta == pytest.approx(cliffs_delta(a, b), abs=1e-14)
    assert found.variance == pytest.approx(spread, rel=1e-12)
    assert found.u == pytest.approx(stats.mannwhitneyu(a, b).statistic, abs=1e-10)
    assert found.ties == pytest.approx(stats.tiecorrect(stats.rankdata(values)), abs=1e-14)


def test_groups_that_do_not_overlap_have_delta_one() -> None:
    values, is_first = np.arange(20.0), np.arange(20) >= 10
    found = effects.dominance(values, is_first)
    assert (found.delta, found.u) == (1, 100)
    t = stats.t.ppf(0.975, 18)
    low, high = effects.delta_interval(1.0, found.variance, 10, 10, 0.95)
    assert (low, high) == (pytest.approx((10 - t**2) / (10 + t**2)), 1)
    low, high = effects.delta_interval(-1.0, found.variance, 10, 10, 0.95)
    assert (low, high) == (-1, pytest.approx(-(10 - t**2) / (10 + t**2)))


def test_the_interval_of_delta_is_near_the_plain_one_for_many_patients() -> None:
    rng = np.random.default_rng(0)
    is_first = np.arange(20_000) < 8_000
    found = effects.dominance(rng.normal(0.1 * is_first, 1), is_first)
    low, high = effects.delta_interval(found.delta, found.variance, 8_000, 12_000, 0.95)
    plain = found.delta + np.array([-1.96, 1.96]) * np.sqrt(found.variance)
    np.testing.assert_allclose([low, high], plain, atol=2e-4)


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.0])
def test_intervals_of_delta_hold_the_truth(shift: float) -> None:
    rng = np.random.default_rng(1)
    truth = 2 * stats.norm.cdf(shift / np.sqrt(1 + 4)) - 1
    is_first = np.arange(40) < 15
    n_held = 0
    for _ in range(600):
        values = np.where(is_first, rng.normal(shift, 1, 40), rng.normal(0, 2, 40))
        found = effects.dominance(values, is_first)
        low, high = effects.delta_interval(found.delta, found.variance, 15, 25, 0.95)
        n_held += low <= truth <= high
    assert 0.92 <= n_held / 600 <= 0.98


@pytest.mark.parametrize("epsilon", [0.001, 0.05, 0.4, 0.9])
@pytest.mark.parametrize(("n", "k"), [(30, 3), (5000, 4)])
def test_the_interval_of_epsilon_inverts_noncentral_f(epsilon: float, n: int, k: int) -> None:
    f = epsilon / (k - 1) / ((1 - epsilon) / (n - k))
    for end, q in zip(effects.epsilon_interval(epsilon, n, k, 0.9), (0.95, 0.05), strict=True):
        noncentrality = n * end / (1 - end)
        if end:
            got = stats.ncf.cdf(f, k - 1, n - k, noncentrality)
            assert got == pytest.approx(q, abs=1e-6)
        else:
            assert stats.f.cdf(f, k - 1, n - k) <= q


@pytest.mark.parametrize(("n", "epsilon"), [(3, 0.2), (100, 1.0), (100_000, 0.99999)])
def test_no_interval_of_epsilon_without_variation_within_groups(n: int, epsilon: float) -> None:
    assert np.isnan(effects.epsilon_interval(epsilon, n, 3, 0.95)).all()


@pytest.mark.parametrize("shift", [0.0, 0.3, 0.8])
def test_intervals_of_epsilon_hold_the_truth(shift: float) -> None:
    rng = np.random.default_rng(2)

    def epsilon(n: int) -> float:
        groups = [rng.normal(shift * g, 1, n) for g in range(3)]
        return float(stats.kruskal(*groups).statistic) / (3 * n - 1)

    truth = epsilon(100_000) if shift else 0.0
    ends = [effects.epsilon_interval(epsilon(40), 120, 3, 0.95) for _ in range(400)]
    assert np.mean([low <= truth <= high for low, high in ends]) >= 0.92


@pytest.mark.parametrize(("rho", "n"), [(0.0, 10), (-0.6, 50), (0.95, 400)])
def test_the_interval_of_rho_by_its_formula(rho: float, n: int) -> None:
    half = stats.norm.ppf(0.975) * np.sqrt((1 + rho**2 / 2) / (n - 3))
    expected = np.tanh(np.arctanh(rho) + np.array([-half, half]))
    np.testing.assert_allclose(effects.rho_interval(rho, n, 0.95), expected, rtol=1e-12)


def test_no_interval_of_a_perfect_rho_or_of_three_patients() -> None:
    assert np.isnan(effects.rho_interval(1.0, 50, 0.95)).all()
    assert np.isnan(effects.rho_interval(0.2, 3, 0.95)).all()


def test_the_interval_of_v_inverts_noncentral_chi2() -> None:
    low, high = effects.v_interval(18.0, 150, 4, 2, 0.95)
    for end, q in ((low, 0.975), (high, 0.025)):
        assert stats.ncx2.cdf(18.0, 3, 150 * end**2) == pytest.approx(q, abs=1e-9)
    assert effects.v_interval(0.5, 150, 4, 2, 0.95)[0] == 0
    assert effects.v_interval(30.0, 30, 2, 2, 0.95)[1] == 1


def test_midranks_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).integers(0, 9, 50).astype(float)
    ranks, ties = effects.midranks(values)
    np.testing.assert_array_equal(ranks, stats.rankdata(values))
    assert ties == pytest.approx(stats.tiecorrect(ranks), abs=1e-14)
    assert effects.midranks(np.ones(5))[1] == 0
