"""Lesions that are explained together, because they lie in the same windows."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.inference.pipeline import Pipeline
from voxplain.regions.lesion import Lesion
from voxplain.space.box import Box

_MOST = 8  # lesions: each holds a map of the windows' reach
_LARGEST = 4.0  # reach of a group, in reaches of its first lesion


def groups_of(pipeline: Pipeline, lesions: Sequence[Lesion]) -> list[list[Lesion]]:
    """Put lesions together that share windows.

    Parameters
    ----------
    pipeline
        Its windows; its inner box is where lesions' boxes begin.
    lesions
        In any order.

    Returns
    -------
    list
        Groups of at most 8 lesions whose windows together cover at most four times what the
        first one's cover, so that the memory of a group does not grow with the volume. Every
        lesion is in one group.
    """
    reach = {
        lesion.name: pipeline.reach([lesion.box.shift(pipeline.inner.start)]) for lesion in lesions
    }
    left = sorted(lesions, key=lambda lesion: (reach[lesion.name].start, reach[lesion.name].stop))
    groups = []
    while left:
        first, *left = left
        group, box = [first], reach[first.name]
        most = _LARGEST * box.n_voxels
        rest = []
        for lesion in left:
            both: Box = box.union(reach[lesion.name])
            is_near = box.intersect(reach[lesion.name]) is not None and both.n_voxels <= most
            if is_near and len(group) < _MOST:
                group.append(lesion)
                box = both
            else:
                rest.append(lesion)
        left = rest
        groups.append(group)
    return groups
