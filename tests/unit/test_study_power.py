"""Smallest effects that would be seen: closed forms, libraries, and power by simulation."""

import numpy as np
import pytest
from scipy import optimize, stats
from statsmodels.stats.power import GofChisquarePower

from voxplain.errors import MethodError
from voxplain.study import power

Z = stats.norm.ppf(0.975) + stats.norm.ppf(0.8)


def test_delta_is_noethers() -> None:
    n = 400
    share = 0.3
    # N = z² / (12 c (1 - c) (p - 1/2)²), delta = 2 p - 1
    distance = Z / np.sqrt(12 * share * (1 - share) * n)
    assert power.smallest_delta(120, 280) == pytest.approx(2 * distance, rel=0.01)
    assert power.smallest_delta(120, 280, ties=0.25) == pytest.approx(distance, rel=0.01)


def test_groups_in_which_no_order_is_rare_enough_see_no_delta() -> None:
    assert np.isnan(power.smallest_delta(3, 3))  # the rarest order has p = 2/20
    assert power.smallest_delta(4, 4) < 1


def test_rho_is_seen_with_its_power() -> None:
    rho = power.smallest_rho(60)
    t = stats.t.ppf(0.975, 58)
    limit = t / np.sqrt(58 + t**2)
    z = (np.arctanh(rho) - np.arctanh(limit)) / np.sqrt((1 + rho**2 / 2) / 57)
    assert stats.norm.cdf(z) == pytest.approx(0.8, abs=1e-9)
    assert np.isnan(power.smallest_rho(3))


@pytest.mark.parametrize("n", [20, 150, 20_000])
@pytest.mark.parametrize("n_rows", [2, 5])
def test_v_and_epsilon_have_their_power_in_statsmodels(n: int, n_rows: int) -> None:
    v = power.smallest_v(n, n_rows, 2)
    epsilon = power.smallest_epsilon(n, n_rows)
    for w in (v, np.sqrt(epsilon / (1 - epsilon))):
        got = GofChisquarePower().power(w, n, 0.05, n_bins=n_rows)
        assert got == pytest.approx(0.8, abs=1e-9)


def test_v_above_one_is_not_given() -> None:
    assert np.isnan(power.smallest_v(6, 5, 2))


def test_phi_that_no_table_reaches_is_not_given() -> None:
    assert power.smallest_phi((50, 50), (50, 50)) == pytest.approx(Z / 10 + 100 / (2 * 50**2))
    # 5 outliers in 100 cannot be far from independent of a half
    assert np.isnan(power.smallest_phi((50, 50), (5, 95)))


@pytest.mark.parametrize("numbers", [(0.0, 0.8), (0.05, 1.0), (0.8, 0.05)])
def test_level_and_power_out_of_range(numbers: tuple[float, float]) -> None:
    level, wanted = numbers
    with pytest.raises(MethodError, match=f"got {level} and {wanted}"):
        power.smallest_delta(20, 20, level=level, power=wanted)


@pytest.mark.slow
@pytest.mark.parametrize(("n_a", "n_b"), [(15, 15), (40, 60), (20, 180)])
def test_delta_is_seen_as_often_as_said(n_a: int, n_b: int) -> None:
    rng = np.random.default_rng(0)
    shift = np.sqrt(2) * stats.norm.ppf((power.smallest_delta(n_a, n_b) + 1) / 2)
    a, b = rng.normal(shift, 1, (2000, n_a)), rng.normal(0, 1, (2000, n_b))
    p = stats.mannwhitneyu(a, b, axis=1).pvalue
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("n", [20, 60, 400])
def test_rho_is_seen_as_often_as_said(n: int) -> None:
    rng = np.random.default_rng(0)
    pearson = 2 * np.sin(np.pi / 6 * power.smallest_rho(n))
    x = rng.normal(size=(2000, n))
    y = pearson * x + np.sqrt(1 - pearson**2) * rng.normal(size=x.shape)
    found = [stats.spearmanr(one, other).pvalue for one, other in zip(x, y, strict=True)]
    assert np.mean(np.array(found) <= 0.05) == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("n_each", "k"), [(20, 3), (60, 5)])
def test_epsilon_is_seen_as_often_as_said(n_each: int, k: int) -> None:
    rng = np.random.default_rng(0)
    wanted = power.smallest_epsilon(n_each * k, k)
    middle = np.arange(k)[:, None]
    noise = rng.normal(size=(k, 40_000))

    def surplus(shift: float) -> float:
        h = stats.kruskal(*(noise + shift * middle)).statistic
        return float(h / (noise.size - 1) - wanted)

    shift = optimize.brentq(surplus, 0, 3, xtol=1e-3)
    groups = rng.normal(size=(k, 2000, n_each)) + shift * middle[:, :, None]
    p = stats.kruskal(*groups, axis=1).pvalue
    assert np.mean(p <= 0.05) == pytest.approx(0.8, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "share"), [(200, 0.5), (300, 0.3)])
def test_phi_of_fishers_test_is_seen_as_often_as_said(n: int, share: float) -> None:
    """Both sums fixed, as Fisher's test has them: tables of one odds ratio."""
    rows = (n // 2, n - n // 2)
    outliers = int(share * n)
    phi = power.smallest_phi(rows, (outliers, n - outliers))
    spread = np.sqrt(float(rows[0]) * rows[1] * outliers * (n - outliers))

    def mean(log_odds: float) -> float:
        fisher = stats.nchypergeom_fisher(n, rows[0], outliers, np.exp(log_odds))
        return float((fisher.mean() * n - rows[0] * outliers) / spread - phi)

    odds = np.exp(optimize.brentq(mean, 0, 4))
    first = np.arange(max(0, outliers - rows[1]), min(rows[0], outliers) + 1)
    tables = [[[a, rows[0] - a], [outliers - a, rows[1] - outliers + a]] for a in first]
    p = np.array([stats.fisher_exact(table)[1] for table in tables])
    seen = stats.nchypergeom_fisher(n, rows[0], outliers, odds).pmf(first)[p <= 0.05].sum()
    assert seen == pytest.approx(0.8, abs=0.05)
