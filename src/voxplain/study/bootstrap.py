"""Bootstrap of whole patients: lesions of one patient are alike, so they are drawn together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from voxplain.errors import DataError

_BLOCK = 4_000_000  # numbers of one block of draws

Floats = NDArray[np.float64]


class PatientDraws:
    """Patients drawn with replacement, many times; the same draws serve every statistic.

    Parameters
    ----------
    patients
        (n,) whose each row is; rows are told apart by it.
    n_boot
        Draws.
    seed
        Of the draws; equal sets of patients are drawn alike.

    Raises
    ------
    DataError
        If `n_boot` is below 1.
    """

    def __init__(self, patients: Sequence[str], n_boot: int, seed: int) -> None:
        if n_boot < 1:
            raise DataError(f"n_boot, the draws of the bootstrap, is at least 1, got {n_boot}")
        self.names, self.owner = np.unique(np.asarray(patients, str), return_inverse=True)
        n = len(self.names)
        rng = np.random.default_rng(seed)
        self.counts = rng.multinomial(n, np.full(n, 1 / max(n, 1)), size=n_boot)
        """(n_boot, n_patients) how often each patient was drawn."""

    def means(self, values: Floats, owner: NDArray[np.intp]) -> Floats:
        """Mean of each draw.

        Parameters
        ----------
        values
            (n,) finite.
        owner
            (n,) indices into `names`.

        Returns
        -------
        numpy.ndarray
            (n_boot,); NaN for a draw with none of these rows.
        """
        n = len(self.names)
        counts = self.counts.astype(np.float64)
        sums = counts @ np.bincount(owner, values, minlength=n)
        return _ratio(sums, counts @ np.bincount(owner, minlength=n))

    def medians(self, values: Floats, owner: NDArray[np.intp]) -> Floats:
        """Median of each draw.

        Parameters
        ----------
        values
            (n,) finite.
        owner
            (n,) indices into `names`.

        Returns
        -------
        numpy.ndarray
            (n_boot,); NaN for a draw with none of these rows.
        """
        order = np.argsort(values, kind="stable")
        ranked = values[order]
        found = []
        for counts in self._blocks(len(values)):
            upto = np.cumsum(counts[:, owner[order]], axis=1)
            total = upto[:, -1]
            # the two middle ones of the drawn rows, the same one where their number is odd
            low = (upto > ((total - 1) // 2)[:, None]).argmax(axis=1)
            high = (upto > (total // 2)[:, None]).argmax(axis=1)
            found.append(np.where(total > 0, (ranked[low] + ranked[high]) / 2, np.nan))
        return np.concatenate(found)

    def deltas(
        self, a: Floats, owner_a: NDArray[np.intp], b: Floats, owner_b: NDArray[np.intp]
    ) -> Floats:
        """Cliff's delta of each draw; see `voxplain.study.lesion_tests.cliffs_delta`.

        Parameters
        ----------
        a, b
            (n_a,), (n_b,) finite.
        owner_a, owner_b
            Indices into `names`.

        Returns
        -------
        numpy.ndarray
            (n_boot,); NaN for a draw without a row of one side.
        """
        n = len(self.names)
        wins = np.zeros((n, n))  # [p, q]: rows of p above rows of q, less those below
        for q in np.unique(owner_b):
            rivals = np.sort(b[owner_b == q])
            signs = np.searchsorted(rivals, a, "left") + np.searchsorted(rivals, a, "right")
            wins[:, q] = np.bincount(owner_a, signs - len(rivals), minlength=n)
        counts = self.counts.astype(np.float64)
        pairs = counts @ np.bincount(owner_a, minlength=n)
        pairs = pairs * (counts @ np.bincount(owner_b, minlength=n))
        return _ratio(((counts @ wins) * counts).sum(axis=1), pairs)

    def average_precisions(
        self, scores: Floats, is_positive: NDArray[np.bool_], owner: NDArray[np.intp]
    ) -> Floats:
        """Average precision of each draw: Σ (recall gained) · (precision), by falling score.

        Parameters
        ----------
        scores
            (n,); rows with one score are taken together.
        is_positive
            (n,) whether a row is of the positive class.
        owner
            (n,) indices into `names`.

        Returns
        -------
        numpy.ndarray
            (n_boot,); NaN for a draw without a positive row.
        """
        order = np.argsort(-scores, kind="stable")
        ends = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)
        found = []
        for counts in self._blocks(len(scores)):
            rows = counts[:, owner[order]]
            taken = np.cumsum(rows, axis=1)[:, ends]
            hits = np.cumsum(rows * is_positive[order], axis=1)[:, ends]
            gained = np.diff(hits, axis=1, prepend=0)
            precision = hits / np.maximum(taken, 1)
            found.append(_ratio((gained * precision).sum(axis=1), hits[:, -1].astype(float)))
        return np.concatenate(found)

    def _blocks(self, n: int) -> Iterator[NDArray[np.int64]]:
        size = max(1, _BLOCK // max(n, 1))
        for start in range(0, len(self.counts), size):
            yield self.counts[start : start + size]


def interval(
    draws: Floats, n_patients: int, level: float, spread: float = 1.0
) -> tuple[float, float]:
    """Return the expanded percentile interval of a bootstrap.

    The ends are the quantiles q and 1 − q of the draws with
    q = Φ(−spread · √(P / (P − 1)) · t), t the quantile (1 + level) / 2 of Student's
    distribution with P − 1 degrees of freedom and P the number of patients.

    Parameters
    ----------
    draws
        (n_boot,) a statistic; NaN where a draw had nothing to tell, which is left out.
    n_patients
        P, different patients behind the statistic; below 2 there is nothing to draw.
    level
        Of the interval, e.g. 0.95.
    spread
        True standard deviation of the statistic over that of the draws.

    Returns
    -------
    tuple
        Low and high; NaN, NaN where there is none. No end is outside of the draws.

    Raises
    ------
    DataError
        If `level` is not between 0 and 1.

    Notes
    -----
    Plain percentile intervals (q = (1 − level) / 2) are too narrow where patients are few. With
    fewer than about six this one is close to the smallest and the largest draw, and still
    promises too much.

    References
    ----------
    Hesterberg, What teachers should know about the bootstrap, The American Statistician 69
    (2015), section 5.3.
    """
    from scipy import stats  # heavy, and a page that only shows tables needs none of it

    check_level(level)
    known = draws[np.isfinite(draws)]
    if n_patients < 2 or not len(known):
        return np.nan, np.nan
    t = stats.t.ppf((1 + level) / 2, n_patients - 1)
    q = stats.norm.cdf(-spread * np.sqrt(n_patients / (n_patients - 1)) * t)
    low, high = np.quantile(known, [q, 1 - q])
    return float(low), float(high)


def check_level(level: float) -> None:
    """Refuse a level of intervals that is not between 0 and 1.

    Raises
    ------
    DataError
        If so.
    """
    if not 0 < level < 1:
        raise DataError(f"level of an interval is between 0 and 1, e.g. 0.95; got {level}")


def _ratio(above: Floats, below: Floats) -> Floats:
    found = np.full(len(above), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found
