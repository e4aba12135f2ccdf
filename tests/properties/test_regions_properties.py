"""What holds of region sums for every map and label map."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from voxplain.regions import RegionSums, instances
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap

CHANNELS = ["x", "y"]


@st.composite
def cases(draw: st.DrawFn, *, overlap: bool | None = None) -> tuple[LabelMap, np.ndarray]:
    """Regions (one layer or several) and a map of two channels, 2D or 3D."""
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=2, max_size=3)))
    grid = Grid(shape, np.diag([*(0.7, 1.1, 2.3)[: len(shape)], 1.0]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.normal(size=(len(CHANNELS), *shape)) * rng.integers(0, 2, shape)
    if draw(st.booleans()) if overlap is None else overlap:
        masks = {f"m{i}": rng.random(shape) < 0.4 for i in range(draw(st.integers(2, 4)))}
        return LabelMap.from_masks(masks, grid), values
    names = {label: f"r{label}" for label in draw(st.sets(st.integers(1, 500), max_size=4))}
    array = rng.choice([0, *names], size=shape)
    return LabelMap.of(array, grid, names), values


def summed(labels: LabelMap, values: np.ndarray) -> RegionSums:
    sums = RegionSums(labels, ["t"], CHANNELS)
    sums.add(0, values, Box.whole(labels.grid.shape))
    return sums


@given(cases())
@settings(deadline=None, max_examples=60)
def test_sums_equal_those_over_plain_masks(case: tuple[LabelMap, np.ndarray]) -> None:
    labels, values = case
    sums = summed(labels, values)
    rows = sums.table("c", "m", "g").frame.set_index(["region", "channel"])
    norm = np.abs(values).sum()
    for region in labels.region_names:
        mask = labels.mask(region)
        for channel, name in enumerate(CHANNELS):
            inside = values[channel][mask]
            row = rows.loc[(region, name)]
            assert row["n_voxels"] == mask.sum()
            np.testing.assert_allclose(row["positive"], inside[inside > 0].sum(), atol=1e-12)
            np.testing.assert_allclose(row["negative"], inside[inside < 0].sum(), atol=1e-12)
            share = np.abs(inside).sum() / norm if norm else np.nan
            np.testing.assert_allclose(row["share"], share, atol=1e-12)
            mean = np.abs(inside).mean() if mask.any() else np.nan
            np.testing.assert_allclose(row["mean"], mean, atol=1e-12)


@given(cases(overlap=False))
@settings(deadline=None, max_examples=60)
def test_disjoint_regions_sum_to_the_voxels(case: tuple[LabelMap, np.ndarray]) -> None:
    labels, values = case
    sums = summed(labels, values)
    frame = sums.table("c", "m", "g").frame
    signed = frame["positive"].sum() + frame["negative"].sum()
    np.testing.assert_allclose(signed, values.sum(), atol=1e-10)
    if values.any():
        np.testing.assert_allclose(sums.shares().sum(), 1.0, rtol=1e-12)


@given(cases(), st.data())
@settings(deadline=None, max_examples=60)
def test_boxes_and_their_order_do_not_matter(
    case: tuple[LabelMap, np.ndarray], data: st.DataObject
) -> None:
    labels, values = case
    shape = labels.grid.shape
    cuts = [sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=2))}) for n in shape]
    boxes = [Box((), ())]
    for axis_cuts in cuts:
        boxes = [
            Box((*box.start, a), (*box.stop, b)) for box in boxes for a, b in pairwise(axis_cuts)
        ]
    sums = RegionSums(labels, ["t"], CHANNELS)
    for box in data.draw(st.permutations(boxes)):
        sums.add(0, values[(slice(None), *box.slices)], box)
    pd.testing.assert_frame_equal(
        sums.table("c", "m", "g").frame,
        summed(labels, values).table("c", "m", "g").frame,
        rtol=1e-11,
        atol=1e-13,
    )


@given(cases(), st.data())
@settings(deadline=None, max_examples=40)
def test_flipping_the_patient_changes_nothing(
    case: tuple[LabelMap, np.ndarray], data: st.DataObject
) -> None:
    labels, values = case
    rank = labels.grid.rank
    axes = tuple(data.draw(st.sets(st.integers(0, rank - 1))))
    order = data.draw(st.permutations(range(rank)))
    along = (0, *(axis + 1 for axis in order))

    def turned(array: np.ndarray) -> np.ndarray:
        return np.flip(array, [axis + 1 for axis in axes]).transpose(along)

    grid = Grid(tuple(labels.grid.shape[axis] for axis in order), labels.grid.affine)
    flipped = LabelMap(turned(labels.layers), grid, labels.names)
    pd.testing.assert_frame_equal(
        summed(flipped, turned(values)).table("c", "m", "g").frame,
        summed(labels, values).table("c", "m", "g").frame,
        rtol=1e-11,
        atol=1e-13,
    )


@given(cases(), st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=40)
def test_shares_do_not_depend_on_scale_or_sign(
    case: tuple[LabelMap, np.ndarray], scale: float
) -> None:
    labels, values = case
    np.testing.assert_allclose(
        summed(labels, -scale * values).shares(), summed(labels, values).shares(), atol=1e-12
    )


@given(cases(), st.integers(1, 5))
@settings(deadline=None, max_examples=40)
def test_instances_cut_a_mask_into_parts_of_falling_size(
    case: tuple[LabelMap, np.ndarray], min_voxels: int
) -> None:
    labels, values = case
    mask = values[0] > 0
    every = instances(mask, labels.grid)
    np.testing.assert_array_equal(every.layers[0] > 0, mask)
    kept = instances(mask, labels.grid, min_voxels=min_voxels)
    sizes = np.bincount(kept.layers[0].ravel())[1:]
    assert (np.diff(sizes) <= 0).all()
    assert (sizes >= min_voxels).all()
    np.testing.assert_array_equal(
        kept.layers[0], np.where(every.layers[0] <= len(sizes), every.layers[0], 0)
    )
