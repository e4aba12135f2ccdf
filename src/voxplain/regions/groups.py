"""Regions joined into larger ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from voxplain.errors import LabelError
from voxplain.regions.relabelling import relabel
from voxplain.space.labelmap import BACKGROUND, LabelMap


def join(
    regions: LabelMap,
    groups: Mapping[str, Sequence[str]],
    rest: Literal["background", "keep"] = "background",
) -> LabelMap:
    """Make one region of each group of regions, e.g. 25 vertebrae into ``vertebrae``.

    Parameters
    ----------
    regions
        Regions to join.
    groups
        Name of each group: the regions it joins. Joined regions of different layers count
        a shared voxel once (a union).
    rest
        What regions in no group become: background, or themselves (``keep``).

    Returns
    -------
    LabelMap
        Labels 1, 2, …: the groups in the order given, then the regions kept in the order of
        their labels. One layer if nothing can overlap: if `regions` has one; else a layer
        for each region.

    Raises
    ------
    LabelError
        If a region is unknown, is background, or is in two groups, a group is empty, two
        results have one name, or `rest` is unknown.
    """
    if rest not in ("background", "keep"):
        raise LabelError(f"rest is 'background' or 'keep', got {rest!r}")
    joined = {group: [regions.label(r) for r in _members(group, groups)] for group in groups}
    used = [label for labels in joined.values() for label in labels]
    twice = sorted({regions.names[label] for label in used if used.count(label) > 1})
    if twice:
        raise LabelError(f"these regions are given more than once: {', '.join(twice)}")
    if rest == "keep":
        for label in sorted(set(regions.names) - {0, *used}):
            if regions.names[label] in joined:
                raise LabelError(
                    f"group {regions.names[label]!r} has the name of a region that is not in it"
                )
            joined[regions.names[label]] = [label]
    if not regions.is_disjoint:
        return LabelMap.from_masks(
            {
                name: np.asarray(np.isin(regions.layers, labels).any(axis=0))
                for name, labels in joined.items()
            },
            regions.grid,
        )
    new = dict.fromkeys(regions.names, 0)
    for place, labels in enumerate(joined.values(), 1):
        new.update(dict.fromkeys(labels, place))
    layers = relabel(regions.layers, new)
    return LabelMap(layers, regions.grid, dict(enumerate(joined, 1)))


def _members(group: str, groups: Mapping[str, Sequence[str]]) -> Sequence[str]:
    members = groups[group]
    if isinstance(members, str) or not members:
        raise LabelError(f"group {group!r} needs a list of regions, got {members!r}")
    if BACKGROUND in members or group == BACKGROUND:
        raise LabelError("background is what is in no region; it cannot be joined")
    return members
