"""Regions: sums of attributions over them, connected instances, joined groups."""

from voxplain.regions.groups import join
from voxplain.regions.instances import instances
from voxplain.regions.sums import RegionSums, importance

__all__ = ["RegionSums", "importance", "instances", "join"]
