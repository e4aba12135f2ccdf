"""Two models on one cohort, or one model on two cohorts: where does importance differ."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations, islice
from math import comb
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError
from voxplain.records.cohort_table import CohortTable, CohortValue
from voxplain.study.bootstrap import interval
from voxplain.study.false_discovery import adjusted
from voxplain.study.importance import LARGE, Floats, MeanDraws, by_patients
from voxplain.study.patient_values import PatientMeans

COMPARISON = (
    "a", "b", "value", "target", "region", "design", "n_a", "n_b", "mean_a", "mean_b", "difference",
    "low", "high", "p", "p_least", "q", "note",
)  # fmt: skip
Design = Literal["paired", "unpaired"]

N_BOOT = 2000
"""Draws of patients behind an interval."""
FEW = 100
"""Patients that carry a difference, below which the normal limit is rough."""
_ALPHA = 0.05
_BLOCK = 4_000_000  # numbers of one block of permutations
_KEPT = 100_000_000  # numbers of permutations that are kept for the next columns
_MOST = 200_000  # permutations that are chosen by themselves
_IMAGE = "image_sha256"  # column of cases


def compare_tables(
    a: CohortTable,
    b: CohortTable,
    *,
    labels: tuple[str, str] = ("a", "b"),
    n_permutations: int | None = None,
    level: float = 0.95,
    seed: int = 0,
    value: CohortValue = "share",
    n_comparisons: int = 1,
) -> pd.DataFrame:
    """Compare the importance of every region for every target between two tables.

    Parameters
    ----------
    a, b
        Two models or methods on the same cases (paired), or two cohorts (unpaired).
    labels
        Names of the two, for the table and its notes.
    n_permutations
        Random ones behind p; if there are no more than that, all are tried and p is exact. None:
        20 for each test, at least 10,000, at most 200,000.
    level
        Of the intervals.
    seed
        Of permutations and draws.
    value
        Which number: ``share`` (0…1), ``mean``, ``positive`` or ``negative``.
    n_comparisons
        Such tables over which p is corrected together later, see
        `voxplain.study.summary.adjusted_comparisons`: each adds its tests to the number that
        `n_permutations` is chosen by.

    Returns
    -------
    pandas.DataFrame
        Columns `COMPARISON`, a row each target and region of either. design: ``paired`` if a case
        stands in both, and then only such cases count; else ``unpaired``. n_a, n_b: patients with
        a known number (paired: known in both). mean_a, mean_b: over patients, each the mean over
        its cases. difference: mean_a − mean_b, with the interval low…high from `N_BOOT` draws of
        patients (see Notes). p: two-sided, of the difference being 0; p_least: the smallest p
        that so many patients and permutations can give, 0 where p is a limit; q: p adjusted over
        all tests of the table by `voxplain.study.false_discovery.adjusted`. note: why something is
        NaN or cannot be significant.

    Raises
    ------
    DataError
        If no case stands in both and yet some patients do, if a case has another patient or
        another image in the other table, or a setting is out of its range.
    LabelError
        If a table does not hold the value.

    Notes
    -----
    Paired: signs of the patients' differences are flipped, T = |mean of differences|. Unpaired:
    patients are dealt out anew to the two sides, T = |difference of means|. With m random
    permutations p = (n + 1) / (m + 1), n of them with T at least as large as seen; with all of
    them p is their share. All targets and regions with the same patients take the same
    permutations. p cannot be below 1 / (m + 1): with an m of less than 20 × the number of tests a
    single difference can never survive the correction. With few patients it cannot either, see
    p_least.

    More than `LARGE` patients (unpaired: on both sides), or `FEW` of them where more than 200,000
    permutations would be chosen: p is the limit of infinitely many
    permutations, normal with their exact variance, and intervals are those of
    `voxplain.study.importance.MeanDraws`.

    The interval of an unpaired difference is widened for the smaller side, see
    `voxplain.study.bootstrap.interval`: with very different sizes it is a little too wide.

    The two-sided test of the unpaired design asks for equal distributions on both sides; with very
    different spreads and sizes it is not exact for equal means alone.

    References
    ----------
    Phipson & Smyth, Permutation p-values should never be zero, Statistical Applications in
    Genetics and Molecular Biology 9 (2010).
    """
    for name, given in (("n_permutations", n_permutations), ("n_comparisons", n_comparisons)):
        if given is not None and given < 1:
            raise DataError(f"{name} is at least 1, got {given}")
    seeds = [int(s) for s in np.random.SeedSequence(seed).generate_state(3)]
    draws = MeanDraws(N_BOOT, level, seeds[0]), MeanDraws(N_BOOT, level, seeds[1])
    design = design_of(a, b)
    remark, chosen = "", (np.arange(len(a)), np.arange(len(b)))
    if design == "paired":
        common = a.cases.index[b.cases.index.get_indexer(a.cases.index) >= 0]
        if len(common) < max(len(a), len(b)):
            remark = f"on the {len(common)} cases in both ({len(a)} and {len(b)})"
        chosen = a.cases.index.get_indexer(common), b.cases.index.get_indexer(common)
    patients = PatientMeans(a.cases.iloc[chosen[0]]), PatientMeans(b.cases.iloc[chosen[1]])
    targets, regions = ([*dict.fromkeys(x + y)] for x, y in (
        (a.targets, b.targets), (a.regions, b.regions),
    ))  # fmt: skip
    wanted = n_permutations or max(10_000, 20 * len(targets) * len(regions) * n_comparisons)
    is_limited = n_permutations is None and wanted > _MOST
    permutations = Permutations(design, _MOST if is_limited else wanted, seeds[2])
    most = FEW if is_limited else LARGE
    rows: list[dict[str, Any]] = []
    for target in targets:
        x = _values(a, target, regions, value)[chosen[0]]
        y = _values(b, target, regions, value)[chosen[1]]
        if design == "paired":
            unknown = np.isnan(x) | np.isnan(y)
            x, y = np.where(unknown, np.nan, x), np.where(unknown, np.nan, y)
        sides = patients[0].of(x), patients[1].of(y)
        named = [{"target": target, "region": region} for region in regions]
        for columns, own_a, own_b in _groups(*sides):
            found = _tested(own_a, own_b, permutations, draws, labels, most)
            for column, row in zip(columns, found, strict=True):
                note = "; ".join(told for told in (remark, row["note"]) if told)
                named[column] |= {**row, "note": note}
        rows += named
    if not rows:
        return pd.DataFrame(columns=[*COMPARISON])
    frame = pd.DataFrame(rows).assign(a=labels[0], b=labels[1], value=value, design=design)
    return frame.assign(q=adjusted(frame["p"].to_numpy(float)))[[*COMPARISON]]


def design_of(a: CohortTable, b: CohortTable) -> Design:
    """Tell whether two tables are compared case by case.

    Raises
    ------
    DataError
        If no case stands in both and yet some patients do, or a case has another patient or
        another image (column ``image_sha256``, where both tables have it) in the other table.
    """
    owner_a, owner_b = (one.cases["patient"].astype(str) for one in (a, b))
    common = owner_a.index[owner_b.index.get_indexer(owner_a.index) >= 0]
    if len(common):
        other = (owner_a.loc[common].to_numpy() != owner_b.loc[common].to_numpy()).nonzero()[0]
        if len(other):
            raise DataError(
                f"{len(other)} cases stand in both tables with different patients, e.g. "
                f"{common[other[0]]!r}: two cohorts need different names of cases, two results of "
                "one cohort the same patients"
            )
        _check_images(a.cases.loc[common], b.cases.loc[common])
        return "paired"
    shared = set(owner_a) & set(owner_b)
    if shared:
        raise DataError(
            f"no case stands in both tables, but {len(shared)} patients do, so the two are neither "
            "the same cases nor independent; leave these patients out of one of them"
        )
    return "unpaired"


def _check_images(a: pd.DataFrame, b: pd.DataFrame) -> None:
    """Refuse two cohorts whose cases have the same names by chance, e.g. ``case001``."""
    if _IMAGE not in a or _IMAGE not in b:
        return
    one, other = (cases[_IMAGE] for cases in (a, b))
    is_other = (one.notna() & other.notna() & (one != other)).to_numpy(bool)
    if is_other.any():
        raise DataError(
            f"{int(is_other.sum())} of {len(a)} cases have one name in both tables and different "
            f"images, e.g. {a.index[is_other][0]!r}: if these are two cohorts, rename the cases of "
            "one study, or name another case column; if they are one, explain the same images"
        )


class Permutations:
    """Permutations of patients; equal numbers of patients share them.

    Parameters
    ----------
    design
        ``paired``: flip signs of differences; ``unpaired``: deal patients out anew.
    n_most
        Random ones, or all if there are no more.
    seed
        Of the random ones.
    """

    def __init__(self, design: Design, n_most: int, seed: int) -> None:
        self.design, self._n_most, self._seed = design, n_most, seed
        self._last: tuple[tuple[int, int], list[NDArray[Any]]] | None = None

    def is_exact(self, n_a: int, n_b: int) -> bool:
        """Whether all are tried."""
        return self._n_all(n_a, n_b) <= self._n_most

    def least(self, n_a: int, n_b: int) -> float:
        """Smallest p that can be found."""
        if not self.is_exact(n_a, n_b):
            return 1 / (self._n_most + 1)
        # swapping equal sides, or flipping all signs, keeps |difference|
        is_mirrored = self.design == "paired" or n_a == n_b
        return min(1.0, (2 if is_mirrored else 1) / self._n_all(n_a, n_b))

    def p(self, values: Floats, n_a: int, n_b: int, scale: Floats) -> Floats:
        """Two-sided p of each column.

        Parameters
        ----------
        values
            (n_patients, n). Paired: differences. Unpaired: side a, then side b, less the mean of
            both together, so that the sum over one side tells the difference of means.
        n_a, n_b
            Patients of each side; equal if paired.
        scale
            (n,) sum of the sizes of what was subtracted: its rounding is no difference.
        """
        total = values.sum(axis=0)
        seen = total if self.design == "paired" else values[:n_a].sum(axis=0)
        least = np.abs(seen) - 1e-12 * scale
        n = np.zeros(values.shape[1])
        for sums in self._sums(values, n_a, n_b):
            # Σ ± d is twice Σ over + less Σ d
            of_block = 2 * sums - total if self.design == "paired" else sums
            n += (np.abs(of_block) >= least).sum(axis=0)
        if self.is_exact(n_a, n_b):
            return n / self._n_all(n_a, n_b)
        return (n + 1) / (self._n_most + 1)

    def _sums(self, values: Floats, n_a: int, n_b: int) -> Iterator[Floats]:
        """Add up the patients that are chosen, a block of permutations at a time."""
        from scipy.sparse import csr_array

        for rows in self._blocks(n_a, n_b):
            if self.design == "paired":
                yield rows.astype(np.float64) @ values
            else:
                ends = np.arange(len(rows) + 1) * rows.shape[1]
                parts = (np.ones(rows.size), rows.reshape(-1), ends)
                yield csr_array(parts, shape=(len(rows), len(values))) @ values

    def _blocks(self, n_a: int, n_b: int) -> Iterable[NDArray[Any]]:
        """Permutations, those of the last call again if they are not too many to be kept."""
        if self._last is not None and self._last[0] == (n_a, n_b):
            return self._last[1]
        made = self._signs(n_a) if self.design == "paired" else self._picks(n_a, n_b)
        if min(self._n_all(n_a, n_b), self._n_most) * min(n_a, n_b) > _KEPT:
            return made
        self._last = (n_a, n_b), [*made]
        return self._last[1]

    def _n_all(self, n_a: int, n_b: int) -> int:
        return 2 ** min(n_a, 60) if self.design == "paired" else comb(n_a + n_b, n_a)

    def _sizes(self, n: int, n_all: int) -> Iterator[tuple[int, int]]:
        """Start and length of each block of permutations of n patients."""
        size = max(1, _BLOCK // n)
        for start in range(0, n_all, size):
            yield start, min(size, n_all - start)

    def _signs(self, n: int) -> Iterator[NDArray[Any]]:
        """Blocks of (n_permutations, n): whether a sign is +."""
        if self.is_exact(n, n):
            for start, size in self._sizes(n, 2**n):
                codes = np.arange(start, start + size)[:, None]
                yield (codes >> np.arange(n) & 1).astype(np.bool_)
            return
        rng = np.random.default_rng(self._seed)
        for _, size in self._sizes(n, self._n_most):
            yield rng.integers(0, 2, (size, n), dtype=np.int8).astype(np.bool_)

    def _picks(self, n_a: int, n_b: int) -> Iterator[NDArray[Any]]:
        """Blocks of (n_permutations, patients of the smaller side): who is on it."""
        n, few = n_a + n_b, min(n_a, n_b)
        if self.is_exact(n_a, n_b):
            every = combinations(range(n), few)
            for _, size in self._sizes(n, comb(n, few)):
                yield np.array([*islice(every, size)], np.int32)
            return
        rng = np.random.default_rng(self._seed)
        for _, size in self._sizes(n, self._n_most):
            if n > 2 * LARGE:  # shuffling all of them takes too long
                picked = [rng.choice(n, few, replace=False, shuffle=False) for _ in range(size)]
                yield np.array(picked, np.int32)
            else:
                order = np.tile(np.arange(n, dtype=np.int32), (size, 1))
                yield rng.permuted(order, axis=1)[:, :few].copy()


def limit_p(values: Floats, n_a: int, n_b: int, scale: Floats, design: Design) -> Floats:
    """Two-sided p of each column in the limit of infinitely many permutations.

    Paired: z = Σ d / √(Σ d²). Unpaired: z = Σ_a v / √(n_a · n_b / (n · (n − 1)) · Σ v²), n = n_a +
    n_b. p = 2 · Φ(−|z|).

    Parameters
    ----------
    values, n_a, n_b, scale
        As in `Permutations.p`.
    design
        Which formula.

    Returns
    -------
    numpy.ndarray
        (n,); 1 where all values are 0 up to rounding.
    """
    from scipy.stats import norm

    squares = (values**2).sum(axis=0)
    if design == "paired":
        seen, variance = values.sum(axis=0), squares
    else:
        n = n_a + n_b
        seen, variance = values[:n_a].sum(axis=0), n_a * n_b / (n * (n - 1)) * squares
    is_moving = np.sqrt(squares) > 1e-12 * scale
    z = np.divide(seen, np.sqrt(variance), out=np.zeros(len(seen)), where=is_moving)
    found: Floats = 2 * norm.sf(np.abs(z))
    return found


def _values(table: CohortTable, target: str, regions: list[str], value: CohortValue) -> Floats:
    """(n_cases, n_regions); NaN for a target or region that the table does not have."""
    if target not in table.targets:
        return np.full((len(table), len(regions)), np.nan)
    return table.of_target(target, value).reindex(columns=regions).to_numpy()


def _groups(a: Floats, b: Floats) -> Iterator[tuple[list[int], Floats, Floats]]:
    """Columns with the same patients, and the known values of both sides."""
    for rows, columns in by_patients(np.vstack([a, b])):
        yield columns, a[rows[: len(a)]][:, columns], b[rows[len(a) :]][:, columns]


def _tested(
    a: Floats,
    b: Floats,
    permutations: Permutations,
    draws: tuple[MeanDraws, MeanDraws],
    labels: tuple[str, str],
    most: int,
) -> list[dict[str, Any]]:
    """Columns of `COMPARISON`, for each region of (n_patients, n_regions)."""
    n_a, n_b, width = len(a), len(b), a.shape[1]
    nothing = np.full(width, np.nan)
    found: dict[str, Any] = {
        "mean_a": a.mean(axis=0) if n_a else nothing,
        "mean_b": b.mean(axis=0) if n_b else nothing,
        **dict.fromkeys(("difference", "low", "high", "p", "p_least"), nothing),
    }
    notes = [
        "; ".join(
            f"no patient of {label} with this target and region"
            for label, n in zip(labels, (n_a, n_b), strict=True)
            if not n
        )
    ] * width
    if n_a and n_b:
        is_paired = permutations.design == "paired"
        if is_paired:
            values, scale = a - b, (np.abs(a) + np.abs(b)).sum(axis=0)
            found["low"], found["high"] = draws[0].intervals(values)
        else:
            both = np.vstack([a, b])
            values, scale = both - both.mean(axis=0), np.abs(both).sum(axis=0)
            found["low"], found["high"] = _unpaired_intervals(a, b, draws)
        found["difference"] = found["mean_a"] - found["mean_b"]
        if min(n_a, n_b) > most and not permutations.is_exact(n_a, n_b):
            found["p"] = limit_p(values, n_a, n_b, scale, permutations.design)
            found["p_least"] = np.zeros(width)
            notes = _rough(values, 1.0 if is_paired else 2 * min(n_a, n_b) / (n_a + n_b))
            if most < LARGE:
                why = "p is a normal limit: so many tests need too many permutations"
                notes = ["; ".join(filter(None, (why, note))) for note in notes]
        else:
            found["p"] = permutations.p(values, n_a, n_b, scale)
            least = permutations.least(n_a, n_b)
            found["p_least"] = np.full(width, least)
            if least > _ALPHA:
                notes = [f"p cannot be below {least:.3g} with {_told(n_a, n_b, is_paired)}"] * width
    return [
        {**{name: column[i] for name, column in found.items()},
         "n_a": n_a, "n_b": n_b, "note": notes[i]}
        for i in range(width)
    ]  # fmt: skip


def _unpaired_intervals(
    a: Floats, b: Floats, draws: tuple[MeanDraws, MeanDraws]
) -> tuple[Floats, Floats]:
    few = min(len(a), len(b))
    if few < 2:
        return np.full(a.shape[1], np.nan), np.full(a.shape[1], np.nan)
    drawn = draws[0].means(a) - draws[1].means(b)
    ends = np.array([interval(column, few, draws[0].level) for column in drawn.T])
    return ends[:, 0], ends[:, 1]


def _told(n_a: int, n_b: int, is_paired: bool) -> str:
    return f"{n_a} patients" if is_paired else f"{n_a} and {n_b} patients"


def _rough(values: Floats, part: float) -> list[str]:
    """Note where few patients carry the variance, (Σ v²)² / Σ v⁴ of them."""
    squares, fourths = (values**2).sum(axis=0), (values**4).sum(axis=0)
    carrying = part * np.divide(
        squares**2, fourths, out=np.full(len(squares), np.inf), where=fourths > 0
    )
    return [
        f"about {n:.0f} patients carry the difference: p, a normal limit, is rough"
        if n < FEW
        else ""
        for n in carrying
    ]
