"""Whether an explanation depends on what stands for absence."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

import numpy as np

from voxplain.assess.correlation import spearman
from voxplain.attribution.baselines import Baseline, Blurred, Constant, MeanImage
from voxplain.attribution.maps import Maps
from voxplain.attribution.method import Method
from voxplain.attribution.question import Question
from voxplain.records.metric import Measured, Metric

METRIC = Metric(
    name="fill_agreement",
    family="stability",
    direction="higher",
    unit="1",
    low=-1.0,
    high=1.0,
    summary="Spearman correlation of the map with that under another fill (baseline)",
    policy="only for methods that have a fill; a constant map has no value",
    source="Sturmfels et al. 2020, Visualizing the impact of feature attribution baselines",
)

_SETTINGS = ("fill", "baseline")


def with_other_fill(method: Method, question: Question) -> Method | None:
    """Return the method with another fill, or None if it has none.

    Parameters
    ----------
    method
        Any.
    question
        Its image. The other fill is the channels' means or, where those are what stands there
        already (an image of mean 0), a blur.
    """
    for one in fields(method):  # type: ignore[arg-type]
        if one.name not in _SETTINGS:
            continue
        now = getattr(method, one.name)
        chosen: Baseline = MeanImage()
        if isinstance(now, MeanImage) or (
            isinstance(now, Constant) and _is_mean(now.value, question)
        ):
            chosen = Blurred()
        return cast(Method, replace(cast(Any, method), **{one.name: chosen}))
    return None


def _is_mean(value: float, question: Question) -> bool:
    """Whether a constant is every channel's mean, to a hundredth of its range."""
    data = question.pipeline.image.data
    means = data.reshape(len(data), -1).mean(axis=1, dtype=np.float64)
    return bool((np.abs(means - value) <= 0.01 * question.intensity_range).all())


def fill_agreement(maps: Maps, other: Maps) -> list[Measured]:
    """Compare the maps under two fills, target by target.

    Parameters
    ----------
    maps, other
        Of one question and method, with two fills.

    Returns
    -------
    list of Measured
        Spearman correlation of the signed maps, −1 to 1.
    """
    return [spearman(a, b) for a, b in zip(maps.signed(), other.signed(), strict=True)]
