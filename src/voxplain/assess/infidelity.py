"""How far the map's sums are from what the target lost, when random parts are removed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.faithfulness_correlation import is_alike, sum_flags
from voxplain.records.metric import CONSTANT_MAP, EMPTY_MAP, NO_CHANGE, Measured, Metric

_SOURCE = "Yeh et al. 2019, arXiv 1901.09392, definition 2.1 and section 2"
_POLICY = (
    "NaN and 'no change' where the target did not drop in any run, or it and the sums are alike in "
    "every run. An empty map has the value 1. "
    "Sums alike in every run are flagged 'constant map'."
)
_RAW_POLICY = "An empty map has the mean square of the drops, and is flagged."


def _metric(suffix: str, parts: str) -> Metric:
    return Metric(
        f"infidelity{suffix}", "faithfulness", "lower", "1", 0.0, 1.0,
        f"least mean square, over random sets of {parts} and all scales of the map, of the "
        "attributions removed less the drop of the target, over the mean square of the drops",
        _POLICY, _SOURCE,
    )  # fmt: skip


def _raw_metric(suffix: str, parts: str) -> Metric:
    return Metric(
        f"infidelity_raw{suffix}", "faithfulness", "lower", "square of the target's unit",
        0.0, np.inf,
        f"mean square, over random sets of {parts}, of the contributions removed less the drop of "
        "the target", _RAW_POLICY, _SOURCE,
    )  # fmt: skip


_SUFFIXES = {"voxels": "", "regions": "_regions", "supervoxels": "_supervoxels"}
METRICS = {kind: _metric(suffix, kind) for kind, suffix in _SUFFIXES.items()}
"""Scale-free infidelity by what is removed."""
RAW_METRICS = {kind: _raw_metric(suffix, kind) for kind, suffix in _SUFFIXES.items()}
"""Infidelity of contributions by what is removed."""


def infidelity(
    sums: NDArray[np.float64], drops: NDArray[np.float64], least: float = 0.0
) -> Measured:
    """Return min over β of E[(βΣ − Δ)²] / E[Δ²], Σ removed attributions, Δ drops.

    The best β = E[ΣΔ] / E[Σ²] leaves 1 − E[ΣΔ]² / (E[Σ²] E[Δ²]).

    Parameters
    ----------
    sums
        (n_runs,) of one target; of a sensitivity times the change (see `Removals.sums`).
    drops
        (n_runs,) what the target lost.
    least
        Drops no larger are nothing; see `Removals.least`.

    Returns
    -------
    Measured
        0 (the map tells every drop, up to one factor) to 1 (as good as a map of zeros).

    Notes
    -----
    captum's ``infidelity(normalize=True)``, over E[Δ²], which frees it from the target's unit.
    β may be negative: an inverted map is as good; `faithfulness_correlation` tells them apart.
    The mean is not taken off: of sets of one size that are large, drops are nearly alike, and
    already a constant map tells most of them. Compare methods, or read the correlation.

    References
    ----------
    Yeh et al. 2019, arXiv 1901.09392, definition 2.1; β as in its program.
    """
    flags = sum_flags(sums)
    largest = float(np.abs(drops).max())
    if largest <= least or (CONSTANT_MAP in flags and is_alike(drops, least)):
        return Measured(float("nan"), (NO_CHANGE,))
    if EMPTY_MAP in flags:
        return Measured(1.0, flags)
    drop = drops / largest
    removed = sums / np.abs(sums).max()
    beta = float((removed @ drop) / (removed @ removed))
    rest = beta * removed - drop
    return Measured(float((rest @ rest) / (drop @ drop)), flags)


def raw_infidelity(sums: NDArray[np.float64], drops: NDArray[np.float64]) -> Measured:
    """Return E[(Σ − Δ)²]: for contributions, which have the unit of the target.

    Parameters
    ----------
    sums, drops
        (n_runs,) removed contributions and drops of one target.

    Returns
    -------
    Measured
        At least 0, in the square of the target's unit.

    Notes
    -----
    captum's ``infidelity(normalize=False)`` with perturbation 1 where a voxel is removed, else 0.

    References
    ----------
    Yeh et al. 2019, arXiv 1901.09392, definition 2.1.
    """
    return Measured(float(np.mean((sums - drops) ** 2)), sum_flags(sums))
