"""How well predicted regions agree with true ones."""

from __future__ import annotations

import numpy as np
import pandas as pd

from voxplain.space.labelmap import BACKGROUND, LabelMap
from voxplain.space.resample import resample_labels

IGNORED = "ignore"


def overlap(prediction: LabelMap, truth: LabelMap) -> pd.DataFrame:
    """Dice and IoU of each predicted class.

    Dice = 2|P ∩ T| / (|P| + |T|), IoU = |P ∩ T| / |P ∪ T|.

    Parameters
    ----------
    prediction
        What the model says.
    truth
        True regions of the same names, on any grid; taken to the prediction's. Voxels of its
        region ``ignore`` count nowhere.

    Returns
    -------
    DataFrame
        Index ``class`` (not the background) in the order of labels; ``dice``, ``iou`` (NaN
        where both masks are empty, or the truth does not know the class), ``n_predicted``,
        ``n_true`` (NaN if not known): voxels of the prediction's grid.
    """
    if not truth.grid.matches(prediction.grid):
        truth = resample_labels(truth, prediction.grid)
    known = set(truth.region_names)
    counted = ~truth.mask(IGNORED) if IGNORED in known else np.True_
    rows = {}
    for name in prediction.region_names:
        if name == BACKGROUND:
            continue
        predicted = prediction.mask(name) & counted
        n_predicted, n_true, n_both = float(predicted.sum()), np.nan, np.nan
        if name in known:
            true = truth.mask(name) & counted
            n_true, n_both = float(true.sum()), float((predicted & true).sum())
        total = n_predicted + n_true
        is_some = total > 0  # False for NaN
        rows[name] = {
            "dice": 2 * n_both / total if is_some else np.nan,
            "iou": n_both / (total - n_both) if is_some else np.nan,
            "n_predicted": n_predicted,
            "n_true": n_true,
        }
    frame = pd.DataFrame.from_dict(rows, orient="index", dtype=float)
    return frame.rename_axis("class")
