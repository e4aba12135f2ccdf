"""How well pixels above a threshold cover the lesion: counts first, then IoU and Dice of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from voxplain.errors import DataError
from voxplain.study.bootstrap import PatientDraws, interval

THRESHOLDS: NDArray[np.float32] = np.linspace(0, 1, 101).astype(np.float32)
"""Of curves and of tuning."""
LEVEL = 0.95
"""Of intervals."""
_PIXELS = 2**20  # that are counted at once

Metric = Literal["iou", "dice"]
METRICS: tuple[Metric, ...] = get_args(Metric)
Counts = NDArray[np.int64]
Floats = NDArray[np.float64]


def scaled(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale each map to [0, 1]: (s − min)/(max − min), as in the paper; a constant one to 0.

    Parameters
    ----------
    maps
        (n, rows, columns).

    Notes
    -----
    It makes the largest pixel of every slice 1, also where a method sees nothing: scale is lost.
    """
    found = np.empty(maps.shape, np.float32)
    for block in _blocks(maps):
        some = maps[block]
        low, high = (np.asarray(end((1, 2), keepdims=True), float) for end in (some.min, some.max))
        found[block] = (some - low) / np.where(high > low, high - low, 1)
    return found


def threshold_counts(
    scores: NDArray[np.float32], truth: NDArray[np.bool_], thresholds: ArrayLike = THRESHOLDS
) -> Counts:
    """Count hits, false alarms and misses of each slice at each threshold.

    A pixel is marked where its score is above the threshold (strictly, as in the paper).

    Parameters
    ----------
    scores
        (n, rows, columns).
    truth
        (n, rows, columns).
    thresholds
        (k,) rising; compared as float32, the type of the scores.

    Returns
    -------
    numpy.ndarray
        (n, k, 3): true positives, false positives, false negatives.

    Raises
    ------
    DataError
        If shapes disagree, a score is NaN, or thresholds do not rise.
    """
    levels = np.atleast_1d(np.asarray(thresholds, np.float32))
    if scores.shape != truth.shape or scores.ndim != 3:
        raise DataError(
            f"scores {scores.shape} and truth {truth.shape} are both (slices, rows, columns)"
        )
    if n_nan := sum(int(np.isnan(scores[block]).sum()) for block in _blocks(scores)):
        raise DataError(f"{n_nan} scores are NaN")
    if (np.diff(levels) <= 0).any():
        raise DataError("thresholds rise")
    found = np.empty((len(scores), len(levels), 3), np.int64)
    for block in _blocks(scores):
        found[block] = _counted(scores[block], truth[block], levels)
    return found


def _counted(scores: NDArray[np.float32], truth: NDArray[np.bool_], levels: Any) -> Counts:
    n, k = len(scores), len(levels)
    # a pixel is marked at the first `passed` thresholds
    passed = np.searchsorted(levels, scores.astype(np.float32), side="left")
    cells = passed + np.arange(n)[:, None, None] * (k + 1)
    found = np.empty((n, k, 3), np.int64)
    for channel, chosen in ((0, truth), (1, ~truth)):
        histogram = np.bincount(cells[chosen], minlength=n * (k + 1)).reshape(n, k + 1)
        found[..., channel] = histogram[:, ::-1].cumsum(1)[:, ::-1][:, 1:]
    found[..., 2] = truth.sum((1, 2))[:, None] - found[..., 0]
    return found


def _blocks(maps: NDArray[Any]) -> Iterator[slice]:
    """Slices that are worked on at once, so that memory does not grow with their number."""
    step = max(1, _PIXELS // max(1, maps[:1].size))
    return (slice(start, start + step) for start in range(0, len(maps), step))


def mask_counts(masks: NDArray[np.bool_], truth: NDArray[np.bool_]) -> Counts:
    """Count hits, false alarms and misses of each slice's mask, (n, 3)."""
    pixels = (-2, -1)
    return np.stack(
        [(masks & truth).sum(pixels), (masks & ~truth).sum(pixels), (~masks & truth).sum(pixels)],
        axis=-1,
    ).astype(np.int64)


def overlap(counts: NDArray[np.integer] | Floats, metric: Metric) -> Floats:
    """IoU tp/(tp+fp+fn) or Dice 2tp/(2tp+fp+fn) of (…, 3); NaN where nothing is to be found.

    The sum of counts over slices first gives the pooled (micro) value; each slice on its own
    and then the mean gives the value per slice, in which an empty mask on a lesion is 0.
    """
    counts = np.asarray(counts, np.float64)
    tp, wrong = counts[..., 0], counts[..., 1] + counts[..., 2]
    above = tp if metric == "iou" else 2 * tp
    below = above + wrong
    found = np.full(below.shape, np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


def tuned(counts: Counts) -> int:
    """Index of the threshold with the largest pooled IoU; the lowest of equal ones.

    Parameters
    ----------
    counts
        (n, k, 3) of validation slices.

    Raises
    ------
    DataError
        If there is no slice with a lesion.
    """
    if not counts[..., [0, 2]].any():
        raise DataError("a threshold is tuned on slices with a lesion, and there is none")
    return int(overlap(counts.sum(0), "iou").argmax())


class OverlapDraws:
    """Pooled and per-slice values with intervals; patients are drawn, the same for all methods.

    Parameters
    ----------
    patients
        (n,) patient of each slice, at least one.
    n_boot, seed
        Draws of patients, and their seed.
    """

    def __init__(self, patients: ArrayLike, n_boot: int, seed: int) -> None:
        self.draws = PatientDraws([str(p) for p in np.asarray(patients)], n_boot, seed)
        self.n_patients = len(self.draws.names)

    def values(self, counts: Counts, metric: Metric, *, per_slice: bool) -> tuple[float, Floats]:
        """Value of all slices, and of each draw, (n_boot,).

        Parameters
        ----------
        counts
            (n, 3).
        metric
            Which.
        per_slice
            Mean over slices, else pooled.
        """
        owner = self.draws.owner
        if per_slice:
            each = overlap(counts, metric)
            known = np.isfinite(each)
            value = float(each[known].mean()) if known.any() else np.nan
            return value, self.draws.means(each[known], owner[known])
        sums = np.zeros((self.n_patients, 3))
        np.add.at(sums, owner, counts)
        value = float(overlap(counts.sum(0), metric))
        return value, overlap(self.draws.counts @ sums, metric)

    def difference(
        self, a: Counts, b: Counts, metric: Metric, *, per_slice: bool
    ) -> tuple[float, float, float]:
        """Value of `a` less that of `b` on the same slices, with its interval: paired draws."""
        value_a, draws_a = self.values(a, metric, per_slice=per_slice)
        value_b, draws_b = self.values(b, metric, per_slice=per_slice)
        return (value_a - value_b, *self.interval(draws_a - draws_b))

    def interval(self, draws: Floats) -> tuple[float, float]:
        """Interval of a statistic of these patients."""
        return interval(draws, self.n_patients, LEVEL)


def overlap_row(counts: Counts | None, draws: OverlapDraws | None, suffix: str) -> dict[str, float]:
    """Columns ``METRIC[_mean]_SUFFIX`` with ``…_low`` and ``…_high``; NaN without counts."""
    found: dict[str, float] = {}
    for metric in METRICS:
        for word, per_slice in (("", False), ("_mean", True)):
            value = low = high = np.nan
            if counts is not None and draws is not None:
                value, drawn = draws.values(counts, metric, per_slice=per_slice)
                low, high = draws.interval(drawn)
            name = f"{metric}{word}_{suffix}"
            found |= {name: value, f"{name}_low": low, f"{name}_high": high}
    return found
