"""Which regions make the score of a case."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import DataError, LabelError, TargetError
from voxplain.records.cohort_table import CohortTable
from voxplain.space.labelmap import nearest
from voxplain.study.anomalies import Anomalies
from voxplain.study.anomaly_cases import CaseOrder, shares_of
from voxplain.study.anomaly_detectors import Detector
from voxplain.study.compositions import closed, replace_zeros

DRIVERS = ("region", "share", "expected", "z", "contribution")
"""One row a region, the largest contribution first. expected: share at the cohort's median. z:
how far the feature (log-ratio or share) is from its median, in root mean squares of the cohort.
contribution: part of the score; see `drivers`."""

Floats = NDArray[np.float64]


def drivers(anomalies: Anomalies, table: CohortTable, case: str, target: str) -> pd.DataFrame:
    """Split the score of a case over regions.

    Parameters
    ----------
    anomalies
        Fitted; of `voxplain.study.anomalies.held_out_detectors` for a case of the cohort itself.
    table
        With the case.
    case, target
        Names; one target, not ``all targets``.

    Returns
    -------
    pandas.DataFrame
        Columns `DRIVERS`. With the detector ``mahalanobis`` the contributions
        (x − m)_i · (S⁻¹ (x − m))_i sum to the score exactly; a negative one is of a region
        whose difference is the one to expect from the others'. With the others, a contribution
        is what the score loses when the region's share is set to what is expected and the rest
        keep their proportions; these do not sum to the score.

    Raises
    ------
    TargetError
        If the target was not fitted on; the reason is told.
    DataError
        If the case is not there, or has no map of the target.
    LabelError
        If the regions are others than those fitted on.

    Notes
    -----
    Shares sum to 1: where one region gets much more, all others get less. Log-ratios keep that
    from marking every region, shares do not.
    """
    if target not in anomalies.detectors:
        why = anomalies.skipped.get(target) or nearest(target, tuple(anomalies.detectors))
        raise TargetError(f"no detector of {target!r}: {why.removeprefix('; ').strip()}")
    if case not in table.cases.index:
        raise DataError(f"no case {case!r} in this cohort")
    if set(table.parts) != set(anomalies.parts):
        raise LabelError(
            f"the detectors look at the regions {', '.join(anomalies.parts)}; this case has "
            f"{', '.join(table.parts)}"
        )
    alone = table.take(np.array([table.cases.index.get_loc(case)]))
    found = shares_of(alone, target, anomalies.parts, CaseOrder.of(alone, 0))
    if not len(found.known):
        raise DataError(f"case {case!r} has no map of {target!r} that could be scored")
    detector = anomalies.detectors[target]
    shares = found.values
    moved = (detector.features(shares) - detector.centre)[0]
    if detector.precision is not None:
        contribution = moved * (detector.precision @ moved)
    else:
        contribution = _losses(detector, shares[0])
    z = np.full(len(moved), np.nan)
    np.divide(moved, detector.spread, out=z, where=detector.spread > 0)
    frame = pd.DataFrame(
        {
            "region": anomalies.parts, "share": shares[0], "expected": detector.expected, "z": z,
            "contribution": contribution,
        }
    )  # fmt: skip
    return frame.sort_values("contribution", ascending=False, kind="stable", ignore_index=True)


def _losses(detector: Detector, shares: Floats) -> Floats:
    """Score less that with each region as expected, the rest in their proportions."""
    whole = closed(shares)
    if detector.delta is not None:
        whole = replace_zeros(whole[None], detector.delta)[0]
    expected = closed(detector.expected)
    n = len(whole)
    others = np.where(np.eye(n, dtype=bool), 0.0, whole)
    # where the region is all there is, the rest has no proportions: those of the cohort
    is_alone = others.sum(axis=1) == 0
    others[is_alone] = np.where(np.eye(n, dtype=bool), 0.0, expected)[is_alone]
    changed = closed(others) * (1 - expected)[:, None] + np.diag(expected)
    found: Floats = detector.score(whole[None]) - detector.score(changed)
    return found
