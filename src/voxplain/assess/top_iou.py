"""Overlap of a mask with as many of the map's highest voxels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from voxplain.assess.average_precision import Counts
from voxplain.records.metric import Measured, Metric

METRIC = Metric(
    name="top_iou",
    family="utility",
    direction="higher",
    unit="1",
    low=0.0,
    high=1.0,
    summary="intersection over union of the mask and as many of the map's highest voxels",
    policy="ties at the cut: their share; constant map: p / (2 - p), p the prevalence; full mask: "
    "1; empty mask: no value",
    source="Arras et al. 2022 (rank accuracy a); this is a / (2 - a)",
)


def top_iou(
    scores: NDArray[np.floating], mask: NDArray[np.bool_], valid: NDArray[np.bool_] | None = None
) -> Measured:
    """Return I / (2 k - I), k voxels in the mask, I of them among the map's k highest.

    Parameters
    ----------
    scores, mask, valid
        As in `voxplain.assess.average_precision.divide`, whose errors are raised.

    Returns
    -------
    Measured
        0 to 1. A map without meaning has about p / (2 - p), p the prevalence.

    Notes
    -----
    Where more voxels share the k-th value than fit in, I takes the same share of them inside the
    mask as of all: its expected value under a random choice, so that the order of the voxels in
    memory does not matter. Quantus' RelevanceRankAccuracy is I / k and chooses by that order.

    References
    ----------
    Arras, Osman, Samek, "CLEVR-XAI", Information Fusion 81, 2022: relevance rank accuracy.
    """
    return top_iou_of(Counts.of(scores, mask, valid))


def top_iou_of(counts: Counts) -> Measured:
    """Overlap with the highest of voxels already counted."""
    if not counts.n_inside:
        return Measured(np.nan, counts.flags)
    common = counts.hits(counts.n_inside)
    return Measured(common / (2 * counts.n_inside - common), counts.flags)
