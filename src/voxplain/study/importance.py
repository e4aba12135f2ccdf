"""Global importance: what a model relies on for each target, over all patients of a cohort."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError
from voxplain.records.cohort_table import CohortTable, CohortValue
from voxplain.study.bootstrap import PatientDraws, check_level, interval
from voxplain.study.patient_values import PatientMeans

IMPORTANCE = (
    "model", "method", "target", "region", "value", "n_cases", "n_patients", "mean", "low", "high",
    "sd", "q25", "median", "median_low", "median_high", "q75", "note",
)  # fmt: skip
CONTEXTUAL = (
    "model", "method", "target", "mean", "low", "high", "n_cases", "n_patients", "note",
)  # fmt: skip
CUMULATED = ("model", "method", "target", "rank", "region", "mean", "cumulated")
LARGE = 2000
"""With more patients, an interval of a mean is Student's: draws would tell the same."""

Floats = NDArray[np.float64]


class MeanDraws:
    """Bootstrapped means of patients, and their intervals.

    Parameters
    ----------
    n_boot
        Draws of whole patients.
    level
        Of intervals, e.g. 0.95.
    seed
        Of the draws.

    Raises
    ------
    DataError
        If `n_boot` is below 1 or `level` is not between 0 and 1.
    """

    def __init__(self, n_boot: int, level: float, seed: int) -> None:
        check_level(level)
        self._n_boot, self.level, self._seed = n_boot, level, seed
        self._counts: Floats = PatientDraws(["0"], n_boot, seed).counts.astype(np.float64)

    def means(self, values: Floats) -> Floats:
        """Mean of each draw.

        Parameters
        ----------
        values
            (n_patients, n) finite, patients sorted; at least one.

        Returns
        -------
        numpy.ndarray
            (n_boot, n). Above `LARGE` patients, normal with the standard error of the mean.
        """
        n, mean = len(values), values.mean(axis=0)
        if n > LARGE:
            normal = np.random.default_rng(self._seed).standard_normal((self._n_boot, 1))
            return np.asarray(mean + normal * values.std(axis=0, ddof=1) / np.sqrt(n))
        if self._counts.shape[1] != n:  # what is drawn depends on the number of patients only
            names = [str(i) for i in range(n)]
            draws = PatientDraws(names, self._n_boot, self._seed)
            self._counts = draws.counts.astype(np.float64)
        found: Floats = mean + self._counts @ (values - mean) / n
        return found

    def intervals(self, values: Floats) -> tuple[Floats, Floats]:
        """Interval of each mean.

        Parameters
        ----------
        values
            (n_patients, n) finite, patients sorted.

        Returns
        -------
        tuple
            Low and high, (n,) each; NaN with fewer than two patients.

        Notes
        -----
        `voxplain.study.bootstrap.interval` of the draws up to `LARGE` patients. Above,
        mean ± t · sd / √P, t the quantile (1 + level) / 2 of Student's distribution with P − 1
        degrees of freedom, which needs no draws; it can leave the range of the values where few
        patients hold nearly all of a region's importance.
        """
        from scipy import stats  # heavy, and a page needs none of it

        n, width = values.shape
        if n < 2:
            return np.full(width, np.nan), np.full(width, np.nan)
        if n > LARGE:
            t = stats.t.ppf((1 + self.level) / 2, n - 1)
            mean, half = values.mean(axis=0), t * values.std(axis=0, ddof=1) / np.sqrt(n)
            return mean - half, mean + half
        ends = [interval(draws, n, self.level) for draws in self.means(values).T]
        low, high = np.array(ends).reshape(width, 2).T
        return low, high


def global_importance(
    table: CohortTable,
    value: CohortValue = "share",
    *,
    n_boot: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Summarise the importance of every region for every target over a cohort.

    mean = (1 / P) Σ_p x_p, with x_p the mean over the cases of patient p.

    Parameters
    ----------
    table
        Of one model and method.
    value
        Which number: ``share`` (0…1), ``mean``, ``positive`` or ``negative``.
    n_boot, seed
        Draws of whole patients behind the interval of the mean, up to `LARGE` patients.
    level
        Of the intervals.

    Returns
    -------
    pandas.DataFrame
        Columns `IMPORTANCE`, a row each target and region (extra ones too), in the order of the
        table. n_cases and n_patients: those where the number is known; all statistics take one
        value a patient. low, high: interval of the mean, see `MeanDraws.intervals`. sd: over
        patients (n − 1). q25, median, q75: quantiles, linear between neighbours. median_low,
        median_high: see `median_ranks`. note: why something is NaN or doubtful.

    Raises
    ------
    LabelError
        If the table does not hold the value.
    DataError
        If `n_boot` or `level` is out of its range.

    Notes
    -----
    The mean is the paper's, where every patient has one case. Memory: one target of the table at
    a time, and n_boot × P numbers. Of disjoint regions that are there in every case, the mean
    shares of a target sum to 1; the medians do not.

    References
    ----------
    Chrabąszcz et al., Aggregated attributions for explanatory analysis of 3D segmentation models,
    WACV 2025, section 3.
    """
    patients, draws = PatientMeans(table.cases), MeanDraws(n_boot, level, seed)
    frames = []
    for target in table.targets:
        of_cases = table.of_target(target, value).to_numpy()
        columns = _summary(patients.of(of_cases), draws)
        n_cases = (~np.isnan(of_cases)).sum(axis=0)
        names = {"model": table.model, "method": table.method, "target": target, "value": value}
        columns = {**columns, "region": [*table.regions], "n_cases": n_cases}
        frames.append(pd.DataFrame(columns).assign(**names))
    if not frames:
        return pd.DataFrame(columns=[*IMPORTANCE])
    return pd.concat(frames, ignore_index=True)[[*IMPORTANCE]]


def importance_matrix(frame: pd.DataFrame, column: str = "mean") -> pd.DataFrame:
    """Lay out one column of `global_importance` as targets × regions.

    Parameters
    ----------
    frame
        Columns `IMPORTANCE`, of one model, method and value.
    column
        Which one, e.g. ``median``.

    Raises
    ------
    DataError
        If the frame is of several models, methods or values, or has no such column.
    """
    _check_single(frame)
    if column not in frame.columns:
        raise DataError(f"no column {column!r} of importance; there are {', '.join(IMPORTANCE)}")
    targets, regions = frame["target"].unique(), frame["region"].unique()
    wide = frame.pivot(index="target", columns="region", values=column)
    return wide.reindex(index=targets, columns=regions)


def contextual(
    table: CohortTable, *, n_boot: int = 2000, level: float = 0.95, seed: int = 0
) -> pd.DataFrame:
    """Tell how contextual targets are: the share of each on the region of its own name.

    Parameters
    ----------
    table
        Of one model and method.
    n_boot, level, seed
        As in `global_importance`.

    Returns
    -------
    pandas.DataFrame
        Columns `CONTEXTUAL`, a row for each target that has such a region; lowest share first
        (the less of its importance lies on itself, the more the target needs its context), those
        without a case last.

    Raises
    ------
    LabelError
        If the table does not hold shares.
    DataError
        If `n_boot` or `level` is out of its range.
    """
    patients, draws = PatientMeans(table.cases), MeanDraws(n_boot, level, seed)
    frames = []
    for target in table.targets:
        if target in table.regions:
            of_cases = table.of_target(target)[[target]].to_numpy()
            columns = {**_summary(patients.of(of_cases), draws)}
            names = {"model": table.model, "method": table.method, "target": target}
            n_cases = (~np.isnan(of_cases)).sum(axis=0)
            frames.append(pd.DataFrame({**columns, "n_cases": n_cases}).assign(**names))
    if not frames:
        return pd.DataFrame(columns=[*CONTEXTUAL])
    found = pd.concat(frames, ignore_index=True)[[*CONTEXTUAL]]
    return found.sort_values("mean", kind="stable", ignore_index=True)


def cumulated(frame: pd.DataFrame, extra_regions: Collection[str] = ()) -> pd.DataFrame:
    """Add up the regions of each target, most important first.

    Parameters
    ----------
    frame
        `global_importance` of shares, of one model and method.
    extra_regions
        Regions that overlap others and are left out, see
        `voxplain.records.cohort_table.CohortTable`.

    Returns
    -------
    pandas.DataFrame
        Columns `CUMULATED`: regions by falling mean (rank 1, 2, …; equal ones in the order of the
        frame) and the share of all up to this one. Regions and targets without a case are left
        out.

    Raises
    ------
    DataError
        If the frame is of something else than shares, of several models or methods, or the
        shares of a target add up to more than 1.
    """
    _check_single(frame)
    if not frame["value"].isin(["share"]).all():
        raise DataError(f"only shares add up, got {frame['value'].iloc[0]!r}; take value='share'")
    kept = frame[~frame["region"].isin([*extra_regions]) & frame["mean"].notna()]
    place = {target: i for i, target in enumerate(kept["target"].unique())}
    kept = kept.assign(_target=kept["target"].map(place), _less=-kept["mean"])
    kept = kept.sort_values(["_target", "_less"], kind="stable", ignore_index=True)
    groups = kept.groupby("_target", sort=False)["mean"]
    kept = kept.assign(rank=groups.cumcount() + 1, cumulated=groups.cumsum())
    over = kept[kept["cumulated"] > 1 + 1e-6]
    if len(over):
        raise DataError(
            f"shares of {over['target'].iloc[0]!r} add up to {over['cumulated'].max():.3f}, more "
            "than 1: regions overlap (name them in extra_regions), or some are missing in some "
            "cases"
        )
    return kept[[*CUMULATED]]


def median_ranks(n: int, level: float) -> int:
    """Return k such that the k-th smallest and k-th largest of n values enclose the median.

    The largest k with P(B ≤ k − 1) ≤ (1 − level) / 2, B binomial (n, ½): the interval holds the
    median of the distribution with a probability of at least `level`, whatever its shape.

    Parameters
    ----------
    n
        Independent values.
    level
        Of the interval, e.g. 0.95.

    Returns
    -------
    int
        1…n / 2; 0 where even the whole range of the values does not reach `level` (at 0.95: n
        below 6).

    References
    ----------
    David & Nagaraja, Order Statistics, 3rd ed. (2003), section 7.1.
    """
    from scipy.stats import binom  # heavy, and a page needs none of it

    tail = (1 - level) / 2
    k = int(binom.ppf(tail, n, 0.5))  # smallest with P(B ≤ k) ≥ tail
    return k + 1 if binom.cdf(k, n, 0.5) <= tail else k


def known_quantile(ranked: Floats, n: NDArray[np.int64], q: float) -> Floats:
    """Quantile of each row, linear between neighbours.

    Parameters
    ----------
    ranked
        (m, n_values) each row rising, NaN at its end.
    n
        (m,) known values of each row.
    q
        0…1.

    Returns
    -------
    numpy.ndarray
        (m,); NaN for a row without values.
    """
    if not ranked.shape[1]:
        return np.full(len(ranked), np.nan)
    place = np.maximum(n - 1, 0) * q
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(n - 1, 0))
    rows = np.arange(len(ranked))
    start = ranked[rows, low]
    found: Floats = start + (place - low) * (ranked[rows, high] - start)
    return found


def by_patients(values: Floats) -> list[tuple[NDArray[np.bool_], list[int]]]:
    """Group columns by who is known in them: (rows that are known, columns)."""
    known = ~np.isnan(values)
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for column in range(values.shape[1]):
        groups[known[:, column].tobytes()].append(column)
    return [(known[:, columns[0]], columns) for columns in groups.values()]


def _summary(values: Floats, draws: MeanDraws) -> dict[str, Any]:
    """Columns of `IMPORTANCE` that are about one value a patient, (n_patients, n_regions)."""
    ranked = np.sort(np.ascontiguousarray(values.T), axis=1)
    width = len(ranked)
    n = (~np.isnan(ranked)).sum(axis=1)
    found: dict[str, Any] = {
        name: np.full(width, np.nan)
        for name in ("mean", "low", "high", "sd", "median_low", "median_high")
    }
    notes = [""] * width
    for rows, columns in by_patients(values):
        own = values[rows][:, columns]
        if len(own):
            found["mean"][columns] = own.mean(axis=0)
            k = median_ranks(len(own), draws.level)
            if k:
                found["median_low"][columns] = ranked[columns, k - 1]
                found["median_high"][columns] = ranked[columns, len(own) - k]
        if len(own) > 1:
            found["sd"][columns] = own.std(axis=0, ddof=1)
            found["low"][columns], found["high"][columns] = draws.intervals(own)
        for column in columns:
            ends = (found["low"][column], found["high"][column])
            notes[column] = _note(ranked[column], len(own), ends, draws.level)
    for name, q in (("q25", 0.25), ("median", 0.5), ("q75", 0.75)):
        found[name] = known_quantile(ranked, n, q)
    return {**found, "n_patients": n, "note": notes}


def _note(ranked: Floats, n: int, ends: tuple[float, float], level: float) -> str:
    if not n:
        return "no case with this target and region"
    if n == 1:
        return "one patient: no intervals, no sd"
    if not median_ranks(n, level):
        return f"{n} patients: no interval of the median at level {level:g}"
    if n > LARGE and ranked[0] < ranked[n - 1] and (ends[0] < ranked[0] or ends[1] > ranked[n - 1]):
        return "few patients hold nearly all of it: the interval of the mean leaves its range"
    return ""


def _check_single(frame: pd.DataFrame) -> None:
    missing = [c for c in IMPORTANCE[:5] if c not in frame.columns]
    if missing:
        raise DataError(f"a table of global importance is missing columns: {', '.join(missing)}")
    for column in ("model", "method", "value"):
        if frame[column].nunique() > 1:
            raise DataError(
                f"importance of one model, method and value is expected, got {column} = "
                f"{', '.join(map(repr, frame[column].unique()))}; filter the rows first"
            )
