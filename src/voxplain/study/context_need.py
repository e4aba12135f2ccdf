"""How many millimetres lesions need: per lesion, and per model with an interval."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import LabelError
from voxplain.records.lesion_tables import CONTEXT, check_columns

NEED = (
    "case", "patient", "model", "instance", "type", "mode", "fill", "n_voxels", "share",
    "probability_final", "need_mm", "first_mm", "is_reached",
)  # fmt: skip
"""One row a lesion, mode and fill; see `context_need`."""

MEDIANS = (
    "model", "mode", "fill", "type", "share", "n_lesions", "n_patients", "n_reached", "median_mm",
    "low_mm", "high_mm", "level",
)  # fmt: skip
"""One row a model, mode, fill and type (``all`` for all lesions); see `context_medians`."""

CURVES = (
    "model", "mode", "fill", "distance_mm", "n_lesions", "probability_mean", "probability_sd",
    "n_detected", "share_detected",
)  # fmt: skip
"""One row a model, mode, fill and distance; see `context_curves`."""

_LESION = ["case", "patient", "model", "instance", "type", "mode", "fill"]
_GROUP = ["model", "mode", "fill"]
_CONTROL = "TN"


def context_need(frame: pd.DataFrame, share: float = 0.95) -> pd.DataFrame:
    """Tell for each lesion from how many millimetres on the model is as sure as it will be.

    Parameters
    ----------
    frame
        Columns `CONTEXT`, of one case or of many.
    share
        Of the probability that the lesion has in the whole image.

    Returns
    -------
    pandas.DataFrame
        Columns `NEED`. With p(d) the lesion's mean probability, linear between the measured
        distances, and p the whole image's:
        ``need_mm``: mode ``keep``, the smallest d from which on p(d) ≥ share·p at every larger
        measured distance; mode ``remove``, the largest d up to which p(d) ≥ share·p at every
        smaller one: what is removed so far is not missed.
        ``first_mm``: ``keep``, where p(d) first reaches share·p; ``remove``, where it falls
        below for good. It differs from ``need_mm`` where the curve comes and goes.
        ``is_reached``: whether both are within the measured distances. Both are NaN if not, or
        if p is 0 or not known.

    Raises
    ------
    LabelError
        If a column is missing, `share` is not between 0 and 1, a lesion's whole image is
        missing, or a distance of a lesion is there twice.

    Notes
    -----
    Spagnolo et al. 2026 read the distance off a figure; the share of 95 % is ours.
    """
    check_columns(frame, CONTEXT, "context")
    if not 0 < share <= 1:
        raise LabelError(f"share is above 0 and at most 1, e.g. 0.95; got {share}")
    rows = []
    for names, part in frame.groupby(_LESION, sort=False, dropna=False):
        lesion = dict(zip(_LESION, names, strict=True))
        one = part.sort_values("distance_mm")
        distances = one["distance_mm"].to_numpy(float)
        values = one["probability_mean"].to_numpy(float)
        whole = values[distances == (np.inf if lesion["mode"] == "keep" else 0)]
        if len(np.unique(distances)) < len(distances) or len(whole) != 1:
            raise LabelError(
                f"lesion {lesion['instance']} of case {lesion['case']}, model {lesion['model']}: "
                f"every distance once and the whole image were expected, got {distances.tolist()} "
                "mm; give cases and models different names, and steps and mm different tables"
            )
        final = float(whole[0])
        finite = np.isfinite(distances)
        need, first = _crossings(
            distances[finite], values[finite], share * final, is_kept=lesion["mode"] == "keep"
        )
        if not final > 0:
            need = first = np.nan
        rows.append(
            {
                **lesion, "n_voxels": one["n_voxels"].iloc[0], "share": share,
                "probability_final": final, "need_mm": need, "first_mm": first,
                "is_reached": bool(np.isfinite(need)),
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(NEED))


def _crossings(
    distances: NDArray[np.float64], values: NDArray[np.float64], level: float, *, is_kept: bool
) -> tuple[float, float]:
    """Need and first; NaN where the curve does not reach the level, or never falls below it."""
    if not np.isfinite(values).all() or not len(values):
        return np.nan, np.nan
    if not is_kept:  # need: the first fall; first: the last one
        below = values < level
        if not below[-1]:
            return np.nan, np.nan
        last = len(values) - int(np.argmin(below[::-1]))
        return (
            _between(distances, values, level, int(np.argmax(below))),
            _between(distances, values, level, last),
        )
    above = values >= level
    if not above[-1]:
        return np.nan, np.nan
    stays = 0 if above.all() else len(values) - int(np.argmin(above[::-1]))
    return (
        _between(distances, values, level, stays),
        _between(distances, values, level, int(np.argmax(above))),
    )


def _between(
    distances: NDArray[np.float64], values: NDArray[np.float64], level: float, i: int
) -> float:
    """Distance at which the line from point i - 1 to point i crosses the level."""
    if i == 0:
        return float(distances[0])
    part = (level - values[i - 1]) / (values[i] - values[i - 1])
    return float(distances[i - 1] + part * (distances[i] - distances[i - 1]))


def context_medians(
    need: pd.DataFrame, n_boot: int = 2000, seed: int = 0, level: float = 0.95
) -> pd.DataFrame:
    """Tell the median need of each model, with an interval that resamples patients.

    Parameters
    ----------
    need
        From `context_need`.
    n_boot
        Draws of the bootstrap.
    seed
        Of the draws; models with the same patients are drawn alike.
    level
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        Columns `MEDIANS`, for all lesions but controls together (``all``) and for each type. A
        lesion that is not reached counts as more than any measured distance: the median is
        inf where half of them or more are not, and so are the interval's ends. Lesions without
        a probability in the whole image are left out.

    Raises
    ------
    LabelError
        If a column is missing, or `n_boot` or `level` is out of its range.

    Notes
    -----
    Lesions of a patient are alike, so whole patients are drawn with replacement (cluster
    bootstrap, percentile interval). With one patient there is nothing to draw: NaN.
    """
    check_columns(need, NEED, "context_need")
    if n_boot < 1 or not 0 < level < 1:
        raise LabelError(
            f"n_boot is at least 1 and level between 0 and 1, got {n_boot} and {level}"
        )
    known = need[need["probability_final"] > 0]
    lesions = known[known["type"] != _CONTROL].assign(type="all")
    rows = []
    for names, part in pd.concat([lesions, known]).groupby(
        [*_GROUP, "type", "share"], sort=False, dropna=False
    ):
        values = part["need_mm"].fillna(np.inf).to_numpy(float)
        patients, owner = np.unique(part["patient"].astype(str), return_inverse=True)
        low, high = _interval(values, owner, len(patients), n_boot, seed, level)
        rows.append(
            {
                **dict(zip([*_GROUP, "type", "share"], names, strict=True)),
                "n_lesions": len(part), "n_patients": len(patients),
                "n_reached": int(part["is_reached"].sum()), "median_mm": float(np.median(values)),
                "low_mm": low, "high_mm": high, "level": level,
            }
        )  # fmt: skip
    return pd.DataFrame(rows, columns=list(MEDIANS))


def _interval(
    values: NDArray[np.float64], owner: NDArray[np.int_], n_patients: int, n_boot: int, seed: int,
    level: float,
) -> tuple[float, float]:  # fmt: skip
    if n_patients < 2:
        return np.nan, np.nan
    rng = np.random.default_rng(seed)
    of_patient = [values[owner == p] for p in range(n_patients)]
    medians = [
        np.median(
            np.concatenate([of_patient[p] for p in rng.integers(n_patients, size=n_patients)])
        )
        for _ in range(n_boot)
    ]
    tail = (1 - level) / 2
    # a quantile that is one of the values: between a number and inf there is nothing
    low, high = np.quantile(medians, [tail, 1 - tail], method="inverted_cdf")
    return float(low), float(high)


def context_curves(frame: pd.DataFrame) -> pd.DataFrame:
    """Put all lesions of a model into one curve: the table behind the figure.

    Parameters
    ----------
    frame
        Columns `CONTEXT`.

    Returns
    -------
    pandas.DataFrame
        Columns `CURVES`, by rising distance: mean and standard deviation (of the sample,
        n - 1; NaN for one lesion) over the lesions, number and share of lesions still detected.
        Control regions are left out.

    Raises
    ------
    LabelError
        If a column is missing.
    """
    check_columns(frame, CONTEXT, "context")
    lesions = frame[frame["type"] != _CONTROL]
    rows = []
    for names, part in lesions.groupby([*_GROUP, "distance_mm"], sort=False):
        detected = part["is_detected"].astype(bool)
        rows.append(
            {
                **dict(zip([*_GROUP, "distance_mm"], names, strict=True)),
                "n_lesions": len(part),
                "probability_mean": float(part["probability_mean"].mean()),
                "probability_sd": float(part["probability_mean"].std(ddof=1)),
                "n_detected": int(detected.sum()), "share_detected": float(detected.mean()),
            }
        )  # fmt: skip
    curves = pd.DataFrame(rows, columns=list(CURVES))
    return curves.sort_values([*_GROUP, "distance_mm"], ignore_index=True)
