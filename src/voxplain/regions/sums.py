"""Sums of attributions over regions, while the maps are being made or afterwards."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain.errors import GridError, MethodError, TargetError
from voxplain.records.attribution import Attribution
from voxplain.records.region_table import COLUMNS, RegionTable
from voxplain.regions.relabelling import relabel
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.space.resample import resample_labels


class RegionSums:
    """Positive and negative sums of several attribution maps over regions, box by box.

    Only the sums are kept, never a map. Background is a region: the voxels that are in no
    region of any layer.

    Parameters
    ----------
    regions
        Regions on the grid of the maps; may overlap.
    targets
        Name of each map, all different.
    channels
        Names of the image channels.

    Raises
    ------
    TargetError
        If two targets have one name.

    Notes
    -----
    Memory: (targets × regions × channels) float64, and a copy of the label map only where its
    labels are not 0, 1, …, n. Cost of `add`: two weighted counts per channel and layer.
    """

    def __init__(self, regions: LabelMap, targets: Sequence[str], channels: Sequence[str]) -> None:
        self.targets = tuple(targets)
        self.channels = tuple(channels)
        self.regions = regions.region_names
        twice = sorted({name for name in self.targets if self.targets.count(name) > 1})
        if twice:
            raise TargetError(f"each target is summed once, these came twice: {', '.join(twice)}")
        self._box = Box.whole(regions.grid.shape)
        self._index = _contiguous(regions)
        shape = (len(self.targets), len(self.regions), len(self.channels))
        self._positive = np.zeros(shape)
        self._negative = np.zeros(shape)
        self._norm = np.zeros(len(self.targets))
        self._n_given = np.zeros(len(self.targets), dtype=np.int64)
        self._n_voxels = self._count_voxels()

    def add(self, target: int, values: NDArray[np.floating[Any]], box: Box) -> None:
        """Add the part of one map that lies in a box.

        Parameters
        ----------
        target
            Position of the map's target in `targets`.
        values
            (n_channels, *box.shape) final values of the map: |a| does not add up over
            partial sums, so every voxel is given at most once per target. Voxels never given
            count as zero.
        box
            Where the values lie, in voxel indices of the label map.

        Raises
        ------
        GridError
            If the box reaches outside the label map, the shape is not that of the box, or
            more voxels were given than there are.
        MethodError
            If a value is NaN or infinite.
        """
        expected = (len(self.channels), *box.shape)
        if values.shape != expected:
            raise GridError(f"values of this box must be {expected}, got {values.shape}")
        if box.intersect(self._box) != box:
            raise GridError(
                f"the box {box.start} to {box.stop} reaches outside the label map of shape "
                f"{self._box.shape}; crop values and box first"
            )
        slabs = [(slab, values[(slice(None), *slab.within(box))]) for slab in _slabs(box)]
        norm = sum(float(np.abs(part).sum(dtype=np.float64)) for _, part in slabs)
        if not np.isfinite(norm):
            raise MethodError(
                f"the attribution of {self.targets[target]!r} holds NaN or infinite values; "
                "the network overflows in this precision: compute in float32"
            )
        self._n_given[target] += box.n_voxels
        if self._n_given[target] > self._box.n_voxels:
            raise GridError(
                f"{self._n_given[target]} voxels were given for {self.targets[target]!r} and the "
                f"label map has {self._box.n_voxels}: a voxel was given twice"
            )
        self._norm[target] += norm
        for slab, part in slabs:
            self._add_slab(target, part.reshape(len(self.channels), -1), slab)

    def _add_slab(self, target: int, values: NDArray[np.floating[Any]], slab: Box) -> None:
        for index, members in self._members(slab):
            for channel, voxels in enumerate(values):
                own = voxels if members is None else voxels[members]
                for sums, part in (
                    (self._positive, np.maximum(own, 0)),
                    (self._negative, np.minimum(own, 0)),
                ):
                    sums[target, :, channel] += np.bincount(
                        index, weights=part, minlength=len(self.regions)
                    )

    def shares(self) -> NDArray[np.float64]:
        """Share of each map's L1 norm by region and channel.

        Returns
        -------
        NDArray
            (n_targets, n_regions, n_channels), 0…1. The norm is over every voxel and channel:
            over disjoint regions a target's shares sum to 1, over overlapping ones they may
            sum to more. NaN where a map is zero everywhere; 0 for a region without voxels.
        """
        norm = np.where(self._norm > 0, self._norm, np.nan)
        return np.asarray(self._absolute() / norm[:, None, None])

    def table(self, case: str, model: str, method: str) -> RegionTable:
        """Rows of target × region × channel, in the order of targets, labels and channels.

        Parameters
        ----------
        case, model, method
            Names that stand in every row.

        Returns
        -------
        RegionTable
            See there for the columns.
        """
        shape = self._positive.shape
        n_voxels = np.broadcast_to(self._n_voxels[None, :, None], shape)
        empty = n_voxels == 0
        mean = np.where(empty, np.nan, self._absolute() / np.where(empty, 1, n_voxels))
        names = pd.MultiIndex.from_product(
            [self.targets, self.regions, self.channels], names=["target", "region", "channel"]
        )
        frame = names.to_frame(index=False).assign(
            case=case,
            model=model,
            method=method,
            share=self.shares().ravel(),
            mean=mean.ravel(),
            positive=self._positive.ravel(),
            negative=self._negative.ravel(),
            n_voxels=n_voxels.ravel(),
        )
        return RegionTable(frame[list(COLUMNS)])

    def _absolute(self) -> NDArray[np.float64]:
        return self._positive - self._negative

    def _members(self, box: Box) -> list[tuple[NDArray[np.intp], NDArray[np.intp] | None]]:
        """Region of each voxel of a box, and which voxels; None where it is every one.

        Disjoint regions: one pair with every voxel. Overlapping: one pair a layer with the
        voxels of its regions, and one with the voxels in no region.
        """
        labels = self._index[(slice(None), *box.slices)].reshape(len(self._index), -1)
        if len(labels) == 1:
            return [(labels[0].astype(np.intp), None)]
        pairs: list[tuple[NDArray[np.intp], NDArray[np.intp] | None]] = []
        for layer in labels:
            inside = np.flatnonzero(layer)
            pairs.append((layer[inside].astype(np.intp), inside))
        outside = np.flatnonzero(~labels.any(axis=0))
        pairs.append((np.zeros(len(outside), dtype=np.intp), outside))
        return pairs

    def _count_voxels(self) -> NDArray[np.int64]:
        counts = np.zeros(len(self.regions), dtype=np.int64)
        for slab in _slabs(self._box):
            for index, _ in self._members(slab):
                counts += np.bincount(index, minlength=len(self.regions))
        return counts


def importance(attributions: Attribution | Sequence[Attribution], regions: LabelMap) -> RegionTable:
    """Sum saved maps over regions.

    Parameters
    ----------
    attributions
        One map or several; they may be of different targets, cases, models and grids. Names
        in the table are those of their provenance.
    regions
        Regions, of any grid that overlaps; taken to the grid of each map by the label at each
        voxel centre.

    Returns
    -------
    RegionTable
        One row per map, region and channel, in the order given.

    Raises
    ------
    GridError
        If a map and the regions have no place in common.
    LabelError
        If two maps have the same case, model, method and target.
    TargetError
        If no map is given.
    """
    maps = [attributions] if isinstance(attributions, Attribution) else list(attributions)
    if not maps:
        raise TargetError("no attribution was given; give one or more")
    by_grid: dict[Grid, LabelMap] = {}
    frames = []
    for item in maps:
        if item.grid not in by_grid:
            same = item.grid.matches(regions.grid)
            by_grid[item.grid] = regions if same else resample_labels(regions, item.grid)
        sums = RegionSums(by_grid[item.grid], [item.target], item.channels)
        sums.add(0, item.values, Box.whole(item.grid.shape))
        made = item.provenance
        frames.append(sums.table(made.case, made.model, made.method).frame)
    return RegionTable(pd.concat(frames, ignore_index=True))


def _slabs(box: Box, n_voxels: int = 2**20) -> Iterator[Box]:
    """Cut a box along its first axis, so that no copy of a large volume is made."""
    step = max(1, n_voxels // math.prod(box.shape[1:]))
    for start in range(box.start[0], box.stop[0], step):
        stop = min(start + step, box.stop[0])
        yield Box((start, *box.start[1:]), (stop, *box.stop[1:]))


def _contiguous(regions: LabelMap) -> NDArray[np.integer[Any]]:
    """Layers with each label replaced by its position among the sorted labels."""
    labels = sorted(regions.names)
    if labels[-1] == len(labels) - 1:
        return regions.layers
    return relabel(regions.layers, {label: place for place, label in enumerate(labels)})
