"""Whether an explanation depends on what stands for absence."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any, cast

from voxplain.assess.correlation import spearman
from voxplain.attribution.baselines import Baseline, Constant, MeanImage
from voxplain.attribution.maps import Maps
from voxplain.attribution.method import Method
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


def with_other_fill(method: Method, other: Baseline | None = None) -> Method | None:
    """Return the method with another fill, or None if it has none.

    Parameters
    ----------
    method
        Any.
    other
        Default: the mean of the image, or 0 where the method has that already.
    """
    for one in fields(method):  # type: ignore[arg-type]
        if one.name not in _SETTINGS:
            continue
        now = getattr(method, one.name)
        chosen = other or (Constant(0.0) if isinstance(now, MeanImage) else MeanImage())
        return cast(Method, replace(cast(Any, method), **{one.name: chosen}))
    return None


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
