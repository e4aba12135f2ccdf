"""Smallest effect that a test would have seen: what a missing finding can, and cannot, rule out."""

from __future__ import annotations

import numpy as np

from voxplain.errors import MethodError

LEVEL = 0.05
"""Level of the test behind a power note; not corrected for the number of tests."""

POWER = 0.8
"""Probability of seeing an effect of the size of a power note."""


def smallest_delta(
    n_a: int, n_b: int, *, ties: float = 1.0, level: float = LEVEL, power: float = POWER
) -> float:
    """Return the smallest Cliff's delta that a two-sided Mann–Whitney test would see.

    delta = z_(1 − level/2) · s_0 + z_power · s_1, with s_0² = ties · (n_a + n_b + 1) / (3 n_a n_b)
    where groups are alike, and at delta, with p = (1 + delta) / 2,
    s_1² = 4 · ties · (p (1 − p) + (n_a − 1)(p / (2 − p) − p²) + (n_b − 1)(2p² / (1 + p) − p²))
    / (n_a n_b).

    Parameters
    ----------
    n_a, n_b
        Patients of both groups, at least 1.
    ties
        1 − Σ (t³ − t) / (n³ − n) over blocks of t equal values: 1 without ties.
    level, power
        0…1.

    Returns
    -------
    float
        0…1; NaN where even groups that do not overlap would be missed.

    Raises
    ------
    MethodError
        If `level` or `power` is not between 0 and 1.

    Notes
    -----
    Noether's formula has s_0 for s_1, and asks for too much where groups are small. s_1 is that
    of exponential distributions, the usual choice; the greater is taken of both ways round.

    References
    ----------
    Noether, Journal of the American Statistical Association 82 (1987). Hanley & McNeil,
    Radiology 143 (1982), for s_1.
    """
    from scipy.optimize import brentq
    from scipy.special import comb, ndtri

    _check(level, power)
    start = float(ndtri(1 - level / 2) * np.sqrt(ties * (n_a + n_b + 1) / (3 * n_a * n_b)))
    if start >= 1 or 2 / comb(n_a + n_b, n_a) > level:
        return float("nan")
    z = float(ndtri(power))

    def short(delta: float) -> float:
        p = (1 + delta) / 2
        one, other = p / (2 - p) - p**2, 2 * p**2 / (1 + p) - p**2
        least, most = sorted((n_a - 1, n_b - 1))
        pairs = most * max(one, other) + least * min(one, other)
        spread = 4 * ties * (p * (1 - p) + pairs) / (n_a * n_b)
        return float(start + z * np.sqrt(spread) - delta)

    return float(brentq(short, 0.0, 1.0))


def smallest_rho(n: int, *, level: float = LEVEL, power: float = POWER) -> float:
    """Return the smallest Spearman correlation that a two-sided test would see.

    atanh(rho) = atanh(r) + z_power · √((1 + rho²/2) / (n − 3)), r the correlation at which the
    t-test is just at `level`.

    Parameters
    ----------
    n
        Patients.
    level, power
        0…1.

    Returns
    -------
    float
        0…1; NaN for fewer than 4 patients.

    Raises
    ------
    MethodError
        If `level` or `power` is not between 0 and 1.

    References
    ----------
    Bonett & Wright, Psychometrika 65 (2000).
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri, stdtrit

    _check(level, power)
    if n < 4:
        return float("nan")
    t = stdtrit(n - 2, 1 - level / 2)
    start = np.arctanh(t / np.sqrt(n - 2 + t**2))
    z = float(ndtri(power))

    def short(value: float) -> float:
        return float(start + z * np.sqrt((1 + np.tanh(value) ** 2 / 2) / (n - 3)) - value)

    return float(np.tanh(brentq(short, 0, start + abs(z) * np.sqrt(1.5 / (n - 3)) + 1)))


def smallest_epsilon(n: int, n_groups: int, *, level: float = LEVEL, power: float = POWER) -> float:
    """Return the smallest epsilon² between groups that a Kruskal–Wallis test would see.

    epsilon² = lambda / (lambda + n), lambda as in `noncentrality` with n_groups − 1 degrees of
    freedom.

    Parameters
    ----------
    n
        Patients of all groups.
    n_groups
        At least 2.
    level, power
        0…1.

    Returns
    -------
    float
        0…1, of the population: the mean of an observed one is greater, by about
        (n_groups − 1) / (n − 1).

    Raises
    ------
    MethodError
        If `level` or `power` is not between 0 and 1.
    """
    found = noncentrality(n_groups - 1, level=level, power=power)
    return found / (found + n)


def smallest_v(
    n: int, n_rows: int, n_columns: int, *, level: float = LEVEL, power: float = POWER
) -> float:
    """Return the smallest Cramér's V that a χ² test would see.

    V = √(lambda / (n · (min(n_rows, n_columns) − 1))), lambda as in `noncentrality` with
    (n_rows − 1)(n_columns − 1) degrees of freedom.

    Parameters
    ----------
    n
        Patients in the table.
    n_rows, n_columns
        Of the table, each at least 2.
    level, power
        0…1.

    Returns
    -------
    float
        0…1; NaN where even a perfect association would be missed.

    Raises
    ------
    MethodError
        If `level` or `power` is not between 0 and 1.
    """
    least = min(n_rows, n_columns) - 1
    found = noncentrality((n_rows - 1) * (n_columns - 1), level=level, power=power)
    return _possible(np.sqrt(found / (n * least)))


def smallest_phi(
    rows: tuple[int, int], columns: tuple[int, int], *, level: float = LEVEL, power: float = POWER
) -> float:
    """Return the smallest V of a 2 × 2 table that Fisher's exact test would see.

    phi = (z_(1 − level/2) + z_power) / √n + n / (2 · √(r_1 · r_2 · c_1 · c_2)): the second term is
    Yates's correction for continuity, which comes close to the exact test.

    Parameters
    ----------
    rows, columns
        Sums of the table, above 0.
    level, power
        0…1.

    Returns
    -------
    float
        0…1; NaN where no table with these sums is that far from independence.

    Raises
    ------
    MethodError
        If `level` or `power` is not between 0 and 1.
    """
    from scipy.special import ndtri

    _check(level, power)
    n = sum(rows)
    spread = float(np.sqrt(float(rows[0]) * rows[1] * columns[0] * columns[1]))
    phi = (ndtri(1 - level / 2) + ndtri(power)) / np.sqrt(n) + n / (2 * spread)
    corners = (max(0, rows[0] + columns[0] - n), min(rows[0], columns[0]))
    farthest = max(abs(corner * n - rows[0] * columns[0]) / spread for corner in corners)
    return float(phi) if phi <= farthest else float("nan")


def noncentrality(df: int, *, level: float = LEVEL, power: float = POWER) -> float:
    """Return the noncentrality at which a χ² test at `level` has this power.

    Parameters
    ----------
    df
        Degrees of freedom, at least 1.
    level, power
        0…1, `power` above `level`.

    Raises
    ------
    MethodError
        If `level` or `power` is not between 0 and 1, or `power` is not above `level`.
    """
    from scipy.special import chdtri, chndtrinc

    _check(level, power)
    return float(chndtrinc(chdtri(df, level), df, 1 - power))


def _check(level: float, power: float) -> None:
    if not 0 < level < power < 1:
        raise MethodError(
            "level of a test and power are between 0 and 1, and power is the greater one, e.g. "
            f"0.05 and 0.8; got {level} and {power}"
        )


def _possible(effect: float) -> float:
    return float(effect) if effect <= 1 else float("nan")
