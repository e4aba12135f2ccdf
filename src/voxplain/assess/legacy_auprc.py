"""Area under the precision-recall curve as Arun et al. took it, to compare with what it hides."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.average_precision import Counts
from voxplain.records.metric import Measured, Metric

METRIC = Metric(
    name="legacy_auprc",
    family="utility",
    direction="higher",
    unit="1",
    low=0.0,
    high=1.0,
    summary="trapezoid under the precision-recall curve with the end point (0, 1); too high for "
    "maps with ties",
    policy="constant map: (1 + prevalence) / 2; full mask: 1; empty mask: no value",
    source="Arun et al. 2021 (preset arun2021); use average_precision instead",
)


def legacy_auprc(
    scores: NDArray[np.floating], mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None
) -> Measured:
    """Return the trapezoid under (recall, precision), from (0, 1) on.

    Parameters
    ----------
    scores, mask, valid
        As in `voxplain.assess.average_precision.divide`, whose errors are raised. The preset
        passes `voxplain.assess.legacy_map.legacy_map`, whose highest voxels are tied.

    Returns
    -------
    Measured
        0 to 1. Equal to sklearn's auc over precision_recall_curve.

    Notes
    -----
    Between two points of the curve precision is no straight line, and before the first one it is
    not 1: a map that is zero but for a few voxels gets about one half, whatever they are.

    References
    ----------
    Arun et al., Radiology: Artificial Intelligence 2021;3(6):e200267. Davis and Goadrich, "The
    relationship between precision-recall and ROC curves", ICML 2006: why not to interpolate.
    """
    return legacy_auprc_of(Counts.of(scores, mask, valid))


def legacy_auprc_of(counts: Counts) -> Measured:
    """Trapezoid of voxels already counted."""
    if not counts.n_inside:
        return Measured(np.nan, counts.flags)
    precision = counts.taken / (counts.taken + counts.above + counts.level)
    before = counts.taken - counts.inside
    n_before = before + counts.above  # voxels of the curve's point before, no recall between
    start = np.divide(before, n_before, out=np.ones(before.size), where=n_before > 0)
    area = float(counts.inside @ (start + precision)) / 2 / counts.n_inside
    return Measured(area, counts.flags)
