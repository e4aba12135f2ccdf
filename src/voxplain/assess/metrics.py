"""Every metric by its name, and which group of ``--metrics`` gives it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from types import MappingProxyType

from voxplain.assess import (
    cascade,
    completeness,
    curves,
    effective_complexity,
    efficiency,
    energy_in_body,
    entropy,
    faithfulness_correlation,
    fill_agreement,
    infidelity,
    leakage,
    legacy_map,
    map_peak,
    performance,
    road_fill,
    sensitivity,
    similarity,
    sparseness,
    stability,
    utility,
)
from voxplain.assess.settings import Group
from voxplain.records.metric import Metric

_AREA = "_area"


def area_of(metric: str) -> str:
    """Name of the area under a cascade of a measure of similarity."""
    return f"{metric}{_AREA}"


def _area(metric: Metric) -> Metric:
    return replace(
        metric, name=area_of(metric.name), family="randomisation", direction="none",
        summary=f"mean over a cascade's steps (trapezoid) of: {metric.summary}",
    )  # fmt: skip


_SIMILARITY = (*similarity.METRICS, legacy_map.METRIC)
_TABLE: tuple[tuple[tuple[Group, ...], tuple[Metric, ...]], ...] = (
    (("faithfulness",), (
        *faithfulness_correlation.METRICS.values(), faithfulness_correlation.AGG2EXP,
        *infidelity.METRICS.values(), *infidelity.RAW_METRICS.values(),
    )),
    (("curves",), (curves.DELETION_AREA, curves.INSERTION_AREA)),
    (("road",), (road_fill.ROAD,)),
    (("curves",), (leakage.LEAKAGE,)),
    (("faithfulness",), (completeness.METRIC,)),
    (("stability",), (*sensitivity.METRICS, *stability.METRICS)),
    (("fills",), (fill_agreement.METRIC,)),
    ((), (map_peak.METRIC,)),
    (("complexity",), (
        effective_complexity.METRIC, sparseness.METRIC, entropy.METRIC, entropy.NORMALISED,
    )),
    (("utility",), (*utility.METRICS, energy_in_body.METRIC)),
    (("randomisation", "agreement"), _SIMILARITY),
    (("randomisation",), (*cascade.METRICS, *(_area(metric) for metric in _SIMILARITY))),
    ((), (performance.MODEL_DICE, performance.MODEL_LOGIT, performance.MODEL_PROBABILITY)),
    (("agreement",), (performance.PREDICTION_AGREEMENT,)),
    (("efficiency",), efficiency.METRICS),
)  # fmt: skip
"""Groups of ``--metrics`` and what each gives, in the order of the report."""

METRICS: Mapping[str, Metric] = MappingProxyType(
    {metric.name: metric for _, given in _TABLE for metric in given}
)
"""In the order of the report."""

GROUPS_OF: Mapping[str, tuple[Group, ...]] = MappingProxyType(
    {metric.name: groups for groups, given in _TABLE for metric in given}
)
"""Groups by metric. None: always there; the model's own values, to be read beside every score,
and the map's peak, by which empty maps are found (VX211)."""


def metrics_of(names: Iterable[str]) -> tuple[Metric, ...]:
    """Return the meaning of these metrics, in the order of `METRICS`.

    Raises
    ------
    KeyError
        If one is not known: a fault of the program.
    """
    wanted = set(names)
    missing = wanted - METRICS.keys()
    if missing:
        raise KeyError(f"metrics without a meaning: {sorted(missing)}")
    return tuple(metric for name, metric in METRICS.items() if name in wanted)
