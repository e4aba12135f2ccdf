"""Whether an explanation depends on what stands for absence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import combinations
from typing import Any, cast

import numpy as np
import pandas as pd

from voxplain.assess.correlation import spearman
from voxplain.attribution.baselines import Baseline, Blurred, Constant, MeanImage
from voxplain.attribution.maps import Maps, compute_maps
from voxplain.attribution.method import Method
from voxplain.attribution.methods import setting_text
from voxplain.attribution.question import Question
from voxplain.errors import MethodError
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

PAIRS = ("method", "target", "fill", "other_fill", "value", "flags")
"""Columns of `fill_pairs`."""

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
    name = _fill_setting(method)
    if name is None:
        return None
    now = getattr(method, name)
    chosen: Baseline = MeanImage()
    if isinstance(now, MeanImage) or (isinstance(now, Constant) and _is_mean(now.value, question)):
        chosen = Blurred()
    return _with(method, name, chosen)


def fill_pairs(question: Question, method: Method, fills: Sequence[Baseline]) -> pd.DataFrame:
    """Compare the maps of a method under every two of some fills.

    Parameters
    ----------
    question
        Image and targets.
    method
        One with a fill or baseline, which is replaced by each of `fills`.
    fills
        At least two, e.g. `MeanImage`, `Blurred`, `Inpainted`, `LearnedInpainting`.

    Returns
    -------
    pandas.DataFrame
        Columns `PAIRS`, a row a target and pair; fills as text of `baseline_of` (a given image:
        its hash). ``value``: `fill_agreement`, NaN with flags where a map is constant.

    Raises
    ------
    MethodError
        If the method has no fill, there are fewer than two, one comes twice, or one does not
        serve the method or the image.

    Notes
    -----
    Passes: those of the method once a fill. Memory: the maps of all fills.
    """
    name = _fill_setting(method)
    if name is None:
        raise MethodError(f"{method.name} has no fill and no baseline; choose another method")
    texts = [setting_text(fill) for fill in fills]
    if len(set(texts)) < max(2, len(texts)):
        raise MethodError(f"expected two or more different fills, got {', '.join(texts) or 'none'}")
    maps = [compute_maps(question, _with(method, name, fill)) for fill in fills]
    rows = []
    for i, j in combinations(range(len(fills)), 2):
        found = fill_agreement(maps[i], maps[j])
        for target, one in zip(question.targets, found, strict=True):
            flags = "; ".join(one.flags)
            rows.append((method.name, target.name, texts[i], texts[j], one.value, flags))
    return pd.DataFrame(rows, columns=list(PAIRS))


def _fill_setting(method: Method) -> str | None:
    """Name of the setting that is a method's fill."""
    names = [one.name for one in fields(method)]  # type: ignore[arg-type]
    return next((name for name in names if name in _SETTINGS), None)


def _with(method: Method, name: str, fill: Baseline) -> Method:
    return cast(Method, replace(cast(Any, method), **{name: fill}))


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
