"""Lesions that are explained together, because they lie in the same windows."""

from __future__ import annotations

from collections.abc import Sequence

from voxplain.inference.pipeline import Pipeline
from voxplain.regions.lesion import Lesion
from voxplain.space.box import Box

_MOST = 8  # lesions: each holds a map of the windows' reach
_LARGEST = 4.0  # reach of a group, in reaches of its first lesion
_BYTES = 512 * 2**20  # of a group's maps


def groups_of(pipeline: Pipeline, lesions: Sequence[Lesion], n_maps: int = 3) -> list[list[Lesion]]:
    """Put lesions together that share windows.

    Parameters
    ----------
    pipeline
        Its windows; its inner box is where lesions' boxes begin.
    lesions
        In any order.
    n_maps
        Maps on the group's reach that each lesion takes.

    Returns
    -------
    list
        Groups of at most 8 lesions whose windows together cover at most four times what the
        first one's cover, and whose maps take at most 512 MiB, so that the memory of a group
        does not grow with the volume. Every lesion is in one group.
    """
    of_voxel = n_maps * pipeline.image.n_channels * pipeline.compute.dtype.itemsize
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
            n_bytes = (len(group) + 1) * both.n_voxels * of_voxel
            if is_near and len(group) < _MOST and n_bytes <= _BYTES:
                group.append(lesion)
                box = both
            else:
                rest.append(lesion)
        left = rest
        groups.append(group)
    return groups
