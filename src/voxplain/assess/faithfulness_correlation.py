"""Whether the target drops as much as the map says, when random parts are removed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, NO_CHANGE, Measured, Metric

_SAME = 1e-12  # of the largest value: what rounding leaves of equal ones
_POLICY = (
    "NaN and 'no change' where the target drops alike in every run; NaN and 'constant map' (or "
    "'empty map', if they are zero) where the removed attributions sum alike in every run."
)


def _metric(suffix: str, parts: str, source: str) -> Metric:
    return Metric(
        f"faithfulness_correlation{suffix}", "faithfulness", "higher", "1", -1.0, 1.0,
        f"Pearson correlation, over random sets of {parts}, of the attributions removed and the "
        "drop of the target", _POLICY, source,
    )  # fmt: skip


_BHATT = "Bhatt et al. 2020, arXiv 2005.00631, definition 3"
METRICS = {
    "voxels": _metric("", "voxels", _BHATT),
    "regions": _metric("_regions", "regions", _BHATT),
    "supervoxels": _metric("_supervoxels", "supervoxels", _BHATT),
}
"""By what is removed."""

AGG2EXP = _metric(
    "_agg2exp", "224² voxels (the predicted mask taken anew in each run)",
    "Chrabąszcz et al. 2025, arXiv 2407.16653, section 4",
)  # fmt: skip


def faithfulness_correlation(
    sums: NDArray[np.float64], drops: NDArray[np.float64], least: float = 0.0
) -> Measured:
    """Return the Pearson correlation over runs of removed attributions and drops.

    r = cov(Σ_{v∈S} a(v), T(x) − T(x without S)) over random sets S.

    Parameters
    ----------
    sums
        (n_runs,) signed attributions removed, of one target (see `Removals.sums`).
    drops
        (n_runs,) what the target lost.
    least
        Drops whose range is no larger did not change; see `Removals.least`.

    Returns
    -------
    Measured
        −1 to 1; a map that knows nothing has values about 0 ± 1/√n_runs.

    Notes
    -----
    Equal to Quantus' FaithfulnessCorrelation for equal sets; its scaling of the map by the
    largest magnitude does not matter. It draws the channels of a voxel apart (here together)
    and its "black" is the smallest intensity. Quantus gives NaN with a warning for constant
    maps, and a number made of rounding where the drops vary by rounding only.

    References
    ----------
    Bhatt et al. 2020, arXiv 2005.00631, definition 3.
    """
    if is_alike(drops, least):
        return Measured(float("nan"), (NO_CHANGE,))
    flags = sum_flags(sums)
    if flags:
        return Measured(float("nan"), flags)
    scaled = [values / np.abs(values).max() for values in (sums, drops)]
    return Measured(float(np.corrcoef(*scaled)[0, 1]))


def is_alike(values: NDArray[np.float64], least: float = 0.0) -> bool:
    """Whether values vary by no more than rounding, or no more than `least`."""
    return bool(np.ptp(values) <= max(least, _SAME * float(np.abs(values).max())))


def sum_flags(sums: NDArray[np.float64]) -> tuple[str, ...]:
    """Return what the sums tell of the map: empty, or the same for every set."""
    if not sums.any():
        return (EMPTY_MAP,)
    return (CONSTANT_MAP,) if is_alike(sums) else ()
