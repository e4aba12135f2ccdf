"""Whether contributions add up to the score that they explain."""

from __future__ import annotations

import math

import numpy as np

from voxplain.attribution.maps import Maps
from voxplain.attribution.question import Question
from voxplain.records.metric import NO_CHANGE, Measured, Metric

METRIC = Metric(
    "completeness_gap", "faithfulness", "lower", "1", 0.0, math.inf,
    "|Σa - ΔT| / |ΔT|, ΔT = T(image) - T(baseline).",
    "NaN for methods whose maps need not sum to the score (sensitivities, localisations, "
    "contributions without a baseline); NaN and 'no change' where ΔT is 0; 1 for an empty map",
    "Sundararajan et al. 2017, arXiv 1703.01365, prop. 1",
)  # fmt: skip


def completeness_gaps(question: Question, maps: Maps) -> list[Measured]:
    """Return |Σa - (T(x) - T(b))| / |T(x) - T(b)| of each target.

    Parameters
    ----------
    question
        The one that the maps answer.
    maps
        Contributions a with the targets' values T(b) at the baseline, if the method has one.

    Returns
    -------
    list of Measured
        At least 0; 0 where the contributions add up.

    Notes
    -----
    No pass: T(x) is known to the question. The sum runs over the image; where the window is
    larger than the image, what the padding contributed is part of the gap, as in
    `Attribution.gap`.

    References
    ----------
    Sundararajan et al. 2017, arXiv 1703.01365, proposition 1.
    """
    start = maps.outcome.baseline_values
    if maps.kind != "contribution" or start is None:
        return [Measured(math.nan) for _ in question.targets]
    n_targets = len(question.targets)
    sums = maps.values.reshape(n_targets, -1).sum(1, dtype=np.float64)
    ends = [value for value, _ in question.linear]
    return [
        _gap(float(total), end - begin) for total, end, begin in zip(sums, ends, start, strict=True)
    ]


def _gap(total: float, change: float) -> Measured:
    if change == 0.0:
        return Measured(math.nan, (NO_CHANGE,))
    return Measured(abs(total - change) / abs(change))
