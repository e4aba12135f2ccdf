"""Whether a map marks what it should: every metric against a mask, in rows of a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.auroc import METRIC as AUROC
from voxplain.assess.auroc import auroc_of
from voxplain.assess.average_precision import METRIC as AVERAGE_PRECISION
from voxplain.assess.average_precision import (
    NORMALISED,
    PREVALENCE,
    Counts,
    average_precision_of,
    normalised_average_precision_of,
    prevalence_of,
)
from voxplain.assess.energy_in_mask import METRIC as ENERGY
from voxplain.assess.energy_in_mask import energy_in_mask
from voxplain.assess.legacy_auprc import METRIC as LEGACY
from voxplain.assess.pointing_game import METRIC as POINTING
from voxplain.assess.pointing_game import pointing_game
from voxplain.assess.top_iou import METRIC as TOP_IOU
from voxplain.assess.top_iou import top_iou_of
from voxplain.records.metric import Measured, Metric


def _outside(metric: Metric) -> Metric:
    return replace(
        metric,
        name=f"{metric.name}_outside",
        summary=f"{metric.summary}; only of voxels outside the prediction",
        policy=f"{metric.policy}; nothing of the truth outside the prediction: an empty mask",
    )


_RANKED = {
    AVERAGE_PRECISION.name: average_precision_of,
    NORMALISED.name: normalised_average_precision_of,
    PREVALENCE.name: prevalence_of,
    AUROC.name: auroc_of,
}

WHOLE = (AVERAGE_PRECISION, NORMALISED, PREVALENCE, AUROC, TOP_IOU, POINTING, ENERGY)
"""Over the whole image."""

OUTSIDE = tuple(
    _outside(metric) for metric in (AVERAGE_PRECISION, NORMALISED, PREVALENCE, AUROC, ENERGY)
)
"""Over the voxels outside the predicted mask, against the truth there: what the model missed."""

IN_PREDICTION = Metric(
    name="energy_in_prediction",
    family="utility",
    direction="none",
    unit="1",
    low=0.0,
    high=1.0,
    summary="share of the map's positive values that lies in the predicted mask",
    policy="a map without a positive value and an empty prediction: no value",
    source="voxplain; a map that lights up where the model marks says little by that",
)

METRICS = (*WHOLE, *OUTSIDE, IN_PREDICTION, LEGACY)
"""All that `utility_rows` can give, and the legacy AUPRC, which needs a map made for it."""


def utility_rows(
    scores: NDArray[np.floating],
    mask: NDArray[np.bool_],
    predicted: NDArray[np.bool_] | None = None,
    spacing: Sequence[float] | None = None,
    *,
    tolerance_mm: float = 0.0,
) -> list[tuple[str, Measured]]:
    """Measure a map against a mask in all ways.

    Parameters
    ----------
    scores
        (*shape) one target's map, magnitudes (see `voxplain.attribution.maps.Maps.magnitude`).
    mask
        (*shape) where the truth lies.
    predicted
        (*shape) what the model marks, for a segmentation model; None for a classifier.
    spacing
        In mm, one an axis; needed for a tolerance.
    tolerance_mm
        Of the pointing game.

    Returns
    -------
    list of (str, Measured)
        Names of `WHOLE`, then, with a prediction, of `OUTSIDE` and `IN_PREDICTION`.

    Raises
    ------
    GridError, LabelError, MethodError
        As in `voxplain.assess.average_precision.divide` and
        `voxplain.assess.pointing_game.pointing_game`.

    Notes
    -----
    Overlap with the model's own output is nearly free for a map of a segmentation target; the
    rows ``…_outside`` leave that output out, on both sides.

    Sorts the map once (twice with a prediction); memory: some copies of it.
    """
    counts = Counts.of(scores, mask)
    found = [(name, measure(counts)) for name, measure in _RANKED.items()]
    found += [
        (TOP_IOU.name, top_iou_of(counts)),
        (
            POINTING.name,
            pointing_game(scores, mask, spacing=spacing, tolerance_mm=tolerance_mm),
        ),
        (ENERGY.name, energy_in_mask(scores, mask)),
    ]
    if predicted is not None:
        found += _prediction_rows(scores, mask, predicted)
    return found


def _prediction_rows(
    scores: NDArray[np.floating], mask: NDArray[np.bool_], predicted: NDArray[np.bool_]
) -> list[tuple[str, Measured]]:
    """Measure outside the prediction, and what lies in it."""
    in_prediction = energy_in_mask(scores, predicted)  # refuses what is no mask of this map
    outside = ~predicted
    counts = Counts.of(scores, mask, outside)
    values = [measure(counts) for measure in _RANKED.values()]
    values.append(energy_in_mask(scores, mask, outside))
    found = [(metric.name, value) for metric, value in zip(OUTSIDE, values, strict=True)]
    return [*found, (IN_PREDICTION.name, in_prediction)]
