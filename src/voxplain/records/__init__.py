"""Results as plain records that save and load, without torch."""

from voxplain.records.attribution import Attribution, Kind
from voxplain.records.class_score import ClassScore
from voxplain.records.explanation import Explanation, TargetSummary
from voxplain.records.finding import CODES, Code, Finding, Outcome
from voxplain.records.provenance import Cost, Provenance, package_versions
from voxplain.records.region_table import COLUMNS, RegionTable

__all__ = [
    "CODES",
    "COLUMNS",
    "Attribution",
    "ClassScore",
    "Code",
    "Cost",
    "Explanation",
    "Finding",
    "Kind",
    "Outcome",
    "Provenance",
    "RegionTable",
    "TargetSummary",
    "package_versions",
]
