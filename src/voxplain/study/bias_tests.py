"""One test of a subgroup each: statistic, p, size of the effect, its interval, what was seeable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxplain.study.effects import (
    delta_interval,
    dominance,
    epsilon_interval,
    midranks,
    rho_interval,
    v_interval,
)
from voxplain.study.power import (
    smallest_delta,
    smallest_epsilon,
    smallest_phi,
    smallest_rho,
    smallest_v,
)

NAN = float("nan")
ALL_EQUAL = "no test: all values are equal"
UNSEEABLE = "too few patients to see any effect"

_EXACT = 8  # patients of the smaller group; scipy.stats.mannwhitneyu draws the line here, too
_EXACT_PAIRS = 10_000  # of both groups: the time of an exact p grows with them
_LEAST_EXPECTED = 5

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tested:
    """Result of one test; the fields are columns of `voxplain.study.bias.BIAS`.

    Parameters
    ----------
    test
        Name.
    statistic, p
        NaN where there was no test.
    effect, effect_name, low, high
        Size of the effect with its interval.
    smallest_effect
        See `voxplain.study.power`; NaN where it is not known.
    note
        Why something is missing, or what is special.
    """

    test: str
    statistic: float = NAN
    p: float = NAN
    effect: float = NAN
    effect_name: str = ""
    low: float = NAN
    high: float = NAN
    smallest_effect: float = NAN
    note: str = ""


def two_groups(values: Floats, is_first: NDArray[np.bool_], level: float) -> Tested:
    """Compare two groups: Mann–Whitney, two-sided, and Cliff's delta.

    Parameters
    ----------
    values
        (n,) finite, one a patient.
    is_first
        (n,) whether a patient is of the first group; at least two of each.
    level
        Of the interval.

    Returns
    -------
    Tested
        statistic: U of the first group. p: exact where a group has 8 patients or fewer, no values
        are equal and the groups make at most 10,000 pairs, else normal with corrections for ties
        and continuity (as `scipy.stats.mannwhitneyu`, which knows no limit of pairs). effect:
        above 0 where the first group has the greater values.

    Notes
    -----
    p tests that both groups have one distribution; groups of equal medians and unlike spread can
    give a small one.
    """
    from scipy.special import ndtr
    from scipy.stats import mannwhitneyu

    test = "Mann–Whitney"
    found = dominance(values, is_first)
    if found.ties == 0:
        return Tested(test, note=ALL_EQUAL)
    n_a = int(is_first.sum())
    n_b = len(values) - n_a
    if min(n_a, n_b) <= _EXACT and n_a * n_b <= _EXACT_PAIRS and found.ties == 1:
        p = float(mannwhitneyu(values[is_first], values[~is_first], method="exact").pvalue)
    else:
        spread = np.sqrt(found.ties * n_a * n_b * (n_a + n_b + 1) / 12)
        z = (abs(found.u - n_a * n_b / 2) - 0.5) / spread
        p = min(1.0, 2 * float(ndtr(-z)))  # the correction for continuity can pass the middle
    low, high = delta_interval(found.delta, found.variance, n_a, n_b, level)
    smallest = smallest_delta(n_a, n_b, ties=found.ties)
    return Tested(
        test, found.u, p, found.delta, "Cliff's delta", low, high, smallest, _seeable(smallest)
    )


def many_groups(values: Floats, groups: NDArray[np.intp], level: float) -> Tested:
    """Compare three groups or more: Kruskal–Wallis and epsilon².

    H = 12 / (n (n + 1)) · Σ n_g (R_g − (n + 1) / 2)² / ties, R_g the mean rank of a group;
    epsilon² = H / (n − 1): the share of the ranks' variance that lies between groups.

    Parameters
    ----------
    values
        (n,) finite, one a patient.
    groups
        (n,) 0…k − 1, each at least once.
    level
        Of the interval.

    Returns
    -------
    Tested
        p: by the χ² approximation with correction for ties.
    """
    from scipy.special import chdtrc

    test = "Kruskal–Wallis"
    ranks, ties = midranks(values)
    if ties == 0:
        return Tested(test, note=ALL_EQUAL)
    n = len(values)
    sizes = np.bincount(groups)
    means = np.bincount(groups, ranks) / sizes
    h = float(12 / (n * (n + 1)) * (sizes * (means - (n + 1) / 2) ** 2).sum() / ties)
    epsilon = h / (n - 1)
    low, high = epsilon_interval(epsilon, n, len(sizes), level)
    note = "" if np.isfinite(high) else "no interval: ranks hardly vary within groups"
    return Tested(
        test, h, float(chdtrc(len(sizes) - 1, h)), epsilon, "epsilon²", low, high,
        smallest_epsilon(n, len(sizes)), note,
    )  # fmt: skip


def trend(values: Floats, numbers: Floats, level: float) -> Tested:
    """Compare with a number: Spearman's rank correlation.

    Parameters
    ----------
    values, numbers
        (n,) finite, one a patient, n at least 4.
    level
        Of the interval.

    Returns
    -------
    Tested
        statistic and effect: the correlation. p: by Student's distribution with n − 2 degrees of
        freedom, as `scipy.stats.spearmanr`.
    """
    from scipy.special import stdtr

    test = "Spearman"
    (x, x_ties), (y, y_ties) = midranks(values), midranks(numbers)
    if x_ties == 0 or y_ties == 0:
        return Tested(test, note=ALL_EQUAL)
    n = len(values)
    x, y = x - (n + 1) / 2, y - (n + 1) / 2
    rho = float(x @ y / np.sqrt((x @ x) * (y @ y)))
    rho = rho if abs(rho) < 1 - 1e-14 else float(np.sign(rho))
    rest = (1 - rho) * (1 + rho)
    t = -abs(rho) * np.sqrt((n - 2) / rest) if rest > 0 else -np.inf
    low, high = rho_interval(rho, n, level)
    note = "" if rest > 0 else "no interval: both have one order"
    return Tested(
        test, rho, 2 * float(stdtr(n - 2, t)), rho, "Spearman's rho", low, high, smallest_rho(n),
        note,
    )  # fmt: skip


def association(
    table: NDArray[np.intp], names: tuple[str, ...], level: float, n_draws: int, seed: int
) -> Tested:
    """Compare how often groups are outliers: Fisher's exact or χ² test, and Cramér's V.

    V = √(χ² / n) for the two columns.

    Parameters
    ----------
    table
        (k, 2) patients of each group that are outliers, and that are not; no sum is 0.
    names
        Of the k groups, for the note.
    level
        Of the interval.
    n_draws, seed
        Random tables with the same sums, where they are needed.

    Returns
    -------
    Tested
        Two groups: Fisher's exact test; statistic: the odds ratio, NaN where it is infinite. More:
        χ², and where a count below 5 is expected the test of Fisher, Freeman and Halton: p is the
        share of random tables that are at most as probable as this one (which counts as one).
    """
    from scipy.special import chdtrc
    from scipy.stats import fisher_exact

    rows, columns = table.sum(axis=1), table.sum(axis=0)
    n = int(table.sum())
    expected = np.outer(rows, columns) / n
    chi2 = float(((table - expected) ** 2 / expected).sum())
    low, high = v_interval(chi2, n, len(table), 2, level)
    v = float(np.sqrt(chi2 / n))
    if len(table) == 2:
        odds, p = map(float, fisher_exact(table))
        smallest = smallest_phi((int(rows[0]), int(rows[1])), (int(columns[0]), int(columns[1])))
        told = f"odds ratio of being an outlier, {names[0]} against {names[1]}: "
        told += f"{odds:.3g}" if np.isfinite(odds) else "infinite"
        test, statistic = "Fisher", odds if np.isfinite(odds) else NAN
        note = "; ".join(filter(None, (told, _seeable(smallest))))
    else:
        test, statistic, p = "χ²", chi2, float(chdtrc(len(table) - 1, chi2))
        smallest = smallest_v(n, len(table), 2)
        note = _seeable(smallest)
        if expected.min() < _LEAST_EXPECTED:
            test, p = "Fisher–Freeman–Halton", _random_tables(table, n_draws, seed)
            note = "; ".join(filter(None, (f"p from {n_draws} random tables", note)))
    return Tested(test, statistic, p, v, "Cramér's V", low, high, smallest, note)


def welch(values: Floats, is_first: NDArray[np.bool_], level: float) -> Tested:
    """Compare the means of two groups: Welch's t-test, two-sided.

    Parameters
    ----------
    values
        (n,) finite, one a patient.
    is_first
        (n,) whether a patient is of the first group; at least two of each.
    level
        Of the interval.

    Returns
    -------
    Tested
        effect: mean of the first group less that of the second, in the unit of the values.
    """
    from scipy.stats import ttest_ind

    test = "t-test (Welch)"
    a, b = values[is_first], values[~is_first]
    if not (np.ptp(a) or np.ptp(b)):
        return Tested(test, note="no test: values do not vary within groups")
    found = ttest_ind(a, b, equal_var=False)
    ends = found.confidence_interval(level)
    return Tested(
        test, float(found.statistic), float(found.pvalue), float(a.mean() - b.mean()),
        "difference of means", float(ends.low), float(ends.high),
    )  # fmt: skip


def proportions(table: NDArray[np.intp], names: tuple[str, ...], level: float) -> Tested:
    """Compare how common the first group is among outliers and among the others.

    z = (a − b) / √(s (1 − s) (1/n_a + 1/n_b)), s the share among all; interval by Newcombe.

    Parameters
    ----------
    table
        (2, 2) patients of each group that are outliers, and that are not; no sum is 0.
    names
        Of both groups.
    level
        Of the interval.

    Returns
    -------
    Tested
        effect: share among outliers less that among the others.

    References
    ----------
    Newcombe, Statistics in Medicine 17 (1998), method 10.
    """
    from scipy.special import ndtr
    from scipy.stats import binomtest

    columns = table.sum(axis=0)
    (a, b), s = table[0] / columns, table[0].sum() / table.sum()
    z = float((a - b) / np.sqrt(s * (1 - s) * (1 / columns).sum()))
    ends = [
        binomtest(int(k), int(n)).proportion_ci(level, method="wilson")
        for k, n in zip(table[0], columns, strict=True)
    ]
    return Tested(
        "two proportions", z, 2 * float(ndtr(-abs(z))), float(a - b), "difference of shares",
        float(a - b - np.hypot(a - ends[0].low, ends[1].high - b)),
        float(a - b + np.hypot(ends[0].high - a, b - ends[1].low)),
        note=f"share of {names[0]} among outliers less that among the others",
    )  # fmt: skip


def _random_tables(table: NDArray[np.intp], n_draws: int, seed: int) -> float:
    from scipy.special import gammaln
    from scipy.stats import random_table

    sums = table.sum(axis=1), table.sum(axis=0)
    drawn = random_table(*sums).rvs(n_draws, random_state=np.random.default_rng(seed))
    # log probabilities, less what all tables with these sums share
    own = -gammaln(table + 1.0).sum()
    others = -gammaln(drawn.reshape(n_draws, -1) + 1.0).sum(axis=1)
    near = 1e-9 * max(1.0, abs(own))
    return float((1 + (others <= own + near).sum()) / (1 + n_draws))


def _seeable(smallest: float) -> str:
    return "" if np.isfinite(smallest) else UNSEEABLE
