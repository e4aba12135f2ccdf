"""The loss of a generator on validation slices."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from voxplain.counterfactual.generator import Learner
from voxplain.counterfactual.samples import spread
from voxplain.counterfactual.slices import Slices
from voxplain.errors import TrainingError

MOST = 256
BATCH = 32


def validation_order(labels: NDArray[np.int8], most: int = MOST) -> NDArray[np.intp]:
    """Choose slices, and mix them so that every batch has about the same share of abnormal ones.

    Parameters
    ----------
    labels
        (n,) 1 for abnormal.
    most
        At most so many, evenly spread over normal and over abnormal ones, in their proportion.
    """
    abnormal, normal = np.flatnonzero(labels), np.flatnonzero(labels == 0)
    n = min(most, len(labels))
    n_abnormal = round(n * len(abnormal) / max(len(labels), 1))
    kinds = [spread(normal, n - n_abnormal), spread(abnormal, n_abnormal)]
    at = [(np.arange(len(kind)) + 0.5) / max(len(kind), 1) for kind in kinds]
    return np.concatenate(kinds)[np.argsort(np.concatenate(at), kind="stable")]


def validation_loss(learner: Learner, slices: Slices) -> dict[str, float]:
    """Mean of each term over validation slices, in batches of `BATCH`.

    mean = Σ n_b·t_b / Σ n_b over the batches b, of n_b slices, that have the term.

    Raises
    ------
    TrainingError
        If the learner gives no ``total``.
    """
    device = next(learner.generator.parameters()).device
    order = validation_order(slices.labels)
    sums: dict[str, tuple[float, int]] = {}
    for start in range(0, len(order), BATCH):
        some = slices.at(order[start : start + BATCH])
        images = torch.from_numpy(some.images).to(device)
        labels = torch.from_numpy(some.labels.astype(np.float32)).to(device)
        for name, value in learner.loss(images, labels).items():
            total, n = sums.get(name, (0.0, 0))
            sums[name] = (total + len(some) * value, n + len(some))
    if "total" not in sums:
        raise TrainingError(f"{type(learner).__name__}.loss gives no term named total")
    return {name: total / n for name, (total, n) in sums.items()}
