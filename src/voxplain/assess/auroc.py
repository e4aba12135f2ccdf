"""Area under the ROC curve of a map against a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.average_precision import Counts
from voxplain.records.metric import Measured, Metric

METRIC = Metric(
    name="auroc",
    family="utility",
    direction="higher",
    unit="1",
    low=0.0,
    high=1.0,
    summary="chance that a voxel of the mask is marked more than one outside, ties counted half",
    policy="constant map: 0.5; empty or full mask: no value",
    source="Mann-Whitney U / (n_inside n_outside)",
)


def auroc(
    scores: NDArray[np.floating], mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None
) -> Measured:
    """Return the share of pairs (inside, outside) that the map orders rightly.

    AUROC = (pairs with s_inside > s_outside + ½ pairs with equal values) / all pairs.

    Parameters
    ----------
    scores, mask, valid
        As in `voxplain.assess.average_precision.divide`, whose errors are raised.

    Returns
    -------
    Measured
        0 to 1, 0.5 for chance. Equal to sklearn.metrics.roc_auc_score; for a small mask it is
        close to 1 long before the average precision is.
    """
    return auroc_of(Counts.of(scores, mask, valid))


def auroc_of(counts: Counts) -> Measured:
    """AUROC of voxels already counted."""
    if not counts.is_defined:
        return Measured(np.nan, counts.flags)
    won = (counts.n_outside - counts.above - counts.level / 2) / counts.n_outside
    return Measured(float(counts.inside @ won) / counts.n_inside, counts.flags)
