"""How good the model itself is: nothing of a map, to be read beside every score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.records.metric import EMPTY_MASK, Measured, Metric

MODEL_DICE = Metric(
    name="model_dice",
    family="agreement",
    direction="none",
    unit="1",
    low=0.0,
    high=1.0,
    summary="Dice of the predicted and the true mask of the target's class",
    policy="no value where both are empty",
    source="Dice 1945",
)
MODEL_LOGIT = Metric(
    name="model_score",
    family="agreement",
    direction="none",
    unit="the target's",
    low=-np.inf,
    high=np.inf,
    summary="the target's value on the clean image",
    policy="0 where the class is not predicted at all",
    source="voxplain",
)
MODEL_PROBABILITY = Metric(
    name="model_probability",
    family="agreement",
    direction="none",
    unit="1",
    low=0.0,
    high=1.0,
    summary="probability that a classifier gives the target's class",
    policy="only for classifiers with probabilities",
    source="voxplain",
)
PREDICTION_AGREEMENT = Metric(
    name="prediction_agreement",
    family="agreement",
    direction="none",
    unit="1",
    low=0.0,
    high=1.0,
    summary="Dice of two models' predicted masks; of classifiers 1 if both predict one class, "
    "else 0",
    policy="no value where both masks are empty",
    source="voxplain",
)
METRICS = (MODEL_DICE, MODEL_LOGIT, MODEL_PROBABILITY, PREDICTION_AGREEMENT)


def dice(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> Measured:
    """Return 2|A ∩ B| / (|A| + |B|) of two masks of one shape; NaN where both are empty."""
    total = int(a.sum()) + int(b.sum())
    if not total:
        return Measured(np.nan, (EMPTY_MASK,))
    return Measured(2 * int((a & b).sum()) / total)
