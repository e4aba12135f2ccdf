"""Shapley values of games with many players: sampled coalitions, weighted least squares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import comb
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.errors import MethodError

Moments: TypeAlias = tuple[NDArray[np.float64], NDArray[np.float64]]

_GROUPS = 8  # of sampled pairs, for the jackknife


@dataclass(frozen=True, eq=False)
class Sample:
    """Coalitions to be valued for `kernel_values`; empty and full are not among them.

    Parameters
    ----------
    coalitions
        (n, p), distinct.
    weights
        (n,), share of the Shapley kernel's mass that each stands for; sums to one.
    groups
        (n,), jackknife group of a sampled coalition, the same for its complement; −1 for one
        that belongs to a size of which all coalitions are there.
    """

    coalitions: NDArray[np.bool_]
    weights: NDArray[np.float64]
    groups: NDArray[np.int64]

    @property
    def is_fixed(self) -> NDArray[np.bool_]:
        """Which coalitions, (n,), are there by enumeration and not by chance."""
        return self.groups < 0


def least_samples(p: int) -> int:
    """Return the fewest coalitions of p ≥ 1 players, beside empty and full, that will do.

    2p for every player alone and every player left out, and a pair for each of the eight
    jackknife groups; or all 2^p − 2, where that is less.
    """
    if p < 1:
        raise MethodError(f"a game has at least 1 player, got {p}")
    return min(2 * p + 2 * _GROUPS, (1 << p) - 2)


def paired_coalitions(p: int, n: int, rng: np.random.Generator) -> Sample:
    """Draw coalitions for KernelSHAP: outer sizes completely, inner ones in random pairs.

    The kernel's mass of all coalitions of size s is ∝ 1 / (s (p−s)). Sizes are treated from
    the outside, s with p−s: 1 and p−1 always, the next ones as long as their share of the
    remaining mass, times the remaining budget, reaches their number. The rest of the budget
    goes to pairs of a coalition and its complement, their sizes spread evenly over the
    remaining mass.

    Parameters
    ----------
    p
        Players, ≥ 5: smaller games are enumerated for fewer values.
    n
        Coalitions, even, from `least_samples(p)` to 2^p − 4.
    rng
        Source of the draws.

    Returns
    -------
    Sample
        n coalitions; enumerated ones carry their exact mass, sampled ones share the rest.

    Raises
    ------
    MethodError
        If `n` is odd, too small, or enough to list all coalitions, which `shapley_values`
        then answers exactly.

    Notes
    -----
    Differs from Covert & Lee: sizes come from one random offset instead of independent draws,
    and a pair is drawn at most once, so that no value is computed twice; both lower the
    variance. Sizes 1 and p−1 are enumerated at any budget, so the regression has full rank.

    References
    ----------
    Lundberg & Lee 2017, arXiv 1705.07874, theorem 2; Covert & Lee 2021, arXiv 2012.01536, §3.2.
    """
    least = least_samples(p)
    n_all = (1 << p) - 2
    if n >= n_all:
        raise MethodError(
            f"sampling takes fewer than all {n_all} coalitions of {p} players, got n={n}; "
            "compute their exact values (shapley_values)"
        )
    if n < least:
        raise MethodError(f"{p} players need at least n={least} coalitions, got {n}")
    if n % 2:
        raise MethodError(f"coalitions come in pairs: n is even, got {n}")
    # of a size and its complement's together, in units of the mass of all sizes
    total = sum(1 / (s * (p - s)) for s in range(1, p))
    mass = {s: (1 if 2 * s == p else 2) / (s * (p - s)) / total for s in range(1, p // 2 + 1)}
    number = {s: comb(p, s) * (1 if 2 * s == p else 2) for s in mass}
    rows: list[NDArray[np.bool_]] = []
    weights: list[float] = []
    sizes = list(mass)
    while sizes[0] == 1 or (n - len(rows)) * mass[sizes[0]] >= number[sizes[0]] * sum(
        mass[s] for s in sizes
    ):
        size = sizes.pop(0)
        for members in combinations(range(p), size):
            row = _row(p, members)
            rows += [row] if 2 * size == p else [row, ~row]
        weights += [mass[size] / number[size]] * number[size]
    n_pairs = (n - len(rows)) // 2
    groups = [-1] * len(rows)
    rows += _draw_pairs(p, n_pairs, {s: mass[s] for s in sizes}, rng)
    weights += [sum(mass[s] for s in sizes) / (2 * n_pairs)] * (2 * n_pairs)
    # neighbours in size go to different groups
    rounds = [rng.permutation(_GROUPS) for _ in range(-(-n_pairs // _GROUPS))]
    groups += np.repeat(np.concatenate(rounds)[:n_pairs], 2).tolist()
    return Sample(np.array(rows), np.array(weights), np.array(groups, dtype=np.int64))


def kernel_values(
    sample: Sample, values: ArrayLike, empty: ArrayLike, full: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimate Shapley values by weighted least squares, with standard errors.

    φ minimises Σ_S w_S (v(∅) + Σ_{i∈S} φ_i − v(S))² under Σ_i φ_i = v(N) − v(∅):
    φ = A⁻¹(b − λ1), A = Σ w z zᵀ, b = Σ w z (v − v(∅)), λ = (1ᵀA⁻¹b − v(N) + v(∅)) / 1ᵀA⁻¹1.

    Parameters
    ----------
    sample
        From `paired_coalitions`, or all coalitions but empty and full with their kernel mass.
    values
        (n, T), one row a coalition of the sample.
    empty, full
        (T,), values of the coalition of nobody and of everybody.

    Returns
    -------
    tuple
        Values (p, T) and their standard errors (p, T), both in the unit of the values. The
        errors come from a jackknife that leaves out one group of pairs at a time, times the
        root of 1 − n_s/N_s (n_s of all N_s coalitions of size s drawn, mean over the sampled
        ones); they are zero where nothing was sampled.

    Raises
    ------
    MethodError
        If the arrays do not fit the sample.

    Notes
    -----
    Up to nine p×p systems. An additive game is met exactly by any sample. The regression's
    bias falls with 1/n, faster than the error; with the least n it may reach 0.7 of it.

    References
    ----------
    Lundberg & Lee 2017, arXiv 1705.07874; Covert & Lee 2021, arXiv 2012.01536, eq. 7.
    """
    table, nobody, everybody = (np.asarray(a, dtype=np.float64) for a in (values, empty, full))
    shape = (len(sample.coalitions), *nobody.shape)
    if nobody.ndim != 1 or nobody.shape != everybody.shape or table.shape != shape:
        raise MethodError(
            f"a sample of {shape[0]} coalitions needs values ({shape[0]}, T), empty (T,) and full "
            f"(T,), got {table.shape}, {nobody.shape} and {everybody.shape}"
        )
    z = sample.coalitions.astype(np.float64)
    gains, gain = table - nobody, everybody - nobody
    fixed = sample.is_fixed
    numbers = np.unique(sample.groups[~fixed])
    parts = [_moments(z, gains, np.where(fixed, sample.weights, 0.0))]
    parts += [_moments(z, gains, sample.weights * (sample.groups == g)) for g in numbers]
    phi = _solve(*_total(parts), gain)
    if not len(numbers):
        return phi, np.zeros_like(phi)
    n_sampled = np.count_nonzero(~fixed)
    without = []
    for g, left_out in enumerate(numbers, start=1):
        # the mass of the group left out goes to the other groups
        scale = n_sampled / np.count_nonzero(~fixed & (sample.groups != left_out))
        kept = [(scale * a, scale * b) for k, (a, b) in enumerate(parts) if k not in (0, g)]
        without.append(_solve(*_total([parts[0], *kept]), gain))
    variance = (len(numbers) - 1) * np.var(without, axis=0)
    return phi, np.sqrt(variance * _share_not_drawn(sample))


def _row(p: int, members: Sequence[int] | NDArray[np.int64]) -> NDArray[np.bool_]:
    row = np.zeros(p, dtype=bool)
    row[list(members)] = True
    return row


def _draw_pairs(
    p: int, n_pairs: int, mass: dict[int, float], rng: np.random.Generator
) -> list[NDArray[np.bool_]]:
    """Draw distinct coalitions, each followed by its complement, by ascending size."""
    bounds = np.cumsum(list(mass.values()))
    places = (rng.random() + np.arange(n_pairs)) / n_pairs * bounds[-1]
    sizes = np.searchsorted(bounds[:-1], places, side="right") + min(mass)
    rows: list[NDArray[np.bool_]] = []
    drawn: set[bytes] = set()
    for size in sizes.tolist():
        while True:
            row = _row(p, rng.choice(p, size, replace=False))
            if 2 * size == p and not row[0]:
                row = ~row  # the two halves of a pair have one size: keep the one with player 0
            if row.tobytes() not in drawn:
                break
        drawn.add(row.tobytes())
        rows += [row, ~row]
    return rows


def _share_not_drawn(sample: Sample) -> float:
    """Mean of 1 − n_s/N_s over the sampled coalitions: drawn without repetition, they vary less."""
    p = sample.coalitions.shape[1]
    drawn: list[int] = np.bincount(sample.coalitions[~sample.is_fixed].sum(axis=1)).tolist()
    return 1 - sum(n * n / comb(p, s) for s, n in enumerate(drawn) if n) / sum(drawn)


def _moments(
    z: NDArray[np.float64], gains: NDArray[np.float64], weights: NDArray[np.float64]
) -> Moments:
    used = weights > 0
    weighted = z[used].T * weights[used]
    return weighted @ z[used], weighted @ gains[used]


def _total(parts: Sequence[Moments]) -> Moments:
    return np.sum([a for a, _ in parts], axis=0), np.sum([b for _, b in parts], axis=0)


def _solve(
    a: NDArray[np.float64], b: NDArray[np.float64], gain: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Minimise φᵀaφ − 2bᵀφ under Σφ = gain."""
    solved = np.linalg.solve(a, np.column_stack([b, np.ones(len(a))]))
    free, ones = solved[:, :-1], solved[:, -1:]
    phi: NDArray[np.float64] = free - ones * ((free.sum(axis=0) - gain) / ones.sum())
    return phi
