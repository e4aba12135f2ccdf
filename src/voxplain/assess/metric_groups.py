"""Which group of ``--metrics`` gives which metric."""

from __future__ import annotations

from collections.abc import Mapping
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
    performance,
    road_fill,
    sensitivity,
    similarity,
    sparseness,
    stability,
    utility,
)
from voxplain.assess.metrics import METRICS, area_of
from voxplain.assess.settings import GROUPS, Group
from voxplain.records.metric import Metric

_SIMILARITY = (*similarity.METRICS, legacy_map.METRIC)
_GIVEN: Mapping[Group, tuple[Metric, ...]] = {
    "faithfulness": (
        *faithfulness_correlation.METRICS.values(), faithfulness_correlation.AGG2EXP,
        *infidelity.METRICS.values(), *infidelity.RAW_METRICS.values(), completeness.METRIC,
    ),
    "curves": (curves.DELETION_AREA, curves.INSERTION_AREA, leakage.LEAKAGE),
    "road": (road_fill.ROAD,),
    "stability": (*sensitivity.METRICS, *stability.METRICS),
    "complexity": (
        effective_complexity.METRIC, sparseness.METRIC, entropy.METRIC, entropy.NORMALISED,
    ),
    "utility": (*utility.METRICS, energy_in_body.METRIC),
    "randomisation": (
        *cascade.METRICS, *_SIMILARITY, *(METRICS[area_of(one.name)] for one in _SIMILARITY),
    ),
    "agreement": (*_SIMILARITY, performance.PREDICTION_AGREEMENT),
    "fills": (fill_agreement.METRIC,),
    "efficiency": efficiency.METRICS,
}  # fmt: skip

GROUPS_OF: Mapping[str, tuple[Group, ...]] = MappingProxyType(
    {
        name: tuple(group for group in GROUPS if metric in _GIVEN[group])
        for name, metric in METRICS.items()
    }
)
"""Groups by metric. None: always there; the model's own values, to be read beside every score,
and the map's peak, by which empty maps are found (VX211)."""
