"""How much of a map lies in a mask."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.average_precision import divide, flags_of
from voxplain.records.metric import EMPTY_MAP, Measured, Metric

METRIC = Metric(
    name="energy_in_mask",
    family="utility",
    direction="higher",
    unit="1",
    low=0.0,
    high=1.0,
    summary="share of the map's positive values that lies in the mask",
    policy="a map without a positive value and an empty mask: no value; constant map: the "
    "prevalence; full mask: 1",
    source="Wang et al. 2020 (energy-based pointing game); Arras et al. 2022 (mass accuracy)",
)


def energy_in_mask(
    scores: NDArray[np.floating], mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None
) -> Measured:
    """Return Σ max(s, 0) over the mask, over its sum everywhere.

    Parameters
    ----------
    scores, mask, valid
        As in `voxplain.assess.average_precision.divide`, whose errors are raised.

    Returns
    -------
    Measured
        0 to 1; a map that is spread evenly has the prevalence. `EMPTY_MAP` where no value is
        positive.

    Notes
    -----
    Sums in float64. Quantus' RelevanceMassAccuracy adds negative values too; on maps without
    any the two agree.

    References
    ----------
    Wang et al., "Score-CAM", CVPR workshops 2020. Arras, Osman, Samek, "CLEVR-XAI", Information
    Fusion 81, 2022.
    """
    inside, outside = divide(scores, mask, valid)
    flags = flags_of(inside, outside)
    within = _positive(inside)
    total = within + _positive(outside)
    if not total and EMPTY_MAP not in flags and inside.size + outside.size:
        flags = (EMPTY_MAP, *flags)
    return Measured(within / total if total and inside.size else np.nan, flags)


def _positive(values: NDArray[np.floating]) -> float:
    return float(np.sum(values, where=values > 0, dtype=np.float64))
