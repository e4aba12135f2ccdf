"""Region sums against closed forms and against plain masks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from voxplain.errors import GridError, LabelError, MethodError, TargetError
from voxplain.records import Attribution, Provenance
from voxplain.regions import RegionSums, importance
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap

AFFINE = np.array([
    [-0.66, 0.11, 0.31, 12.5],
    [0.09, 1.08, -0.43, -40.25],
    [0.21, 0.17, 2.24, 7.0],
    [0.0, 0.0, 0.0, 1.0],
])  # fmt: skip
GRID = Grid((5, 7, 11), AFFINE)
LINE = Grid((2, 3), np.eye(3))


def attribution(values: np.ndarray, grid: Grid, target: str = "t", case: str = "c") -> Attribution:
    return Attribution(
        values=values,
        grid=grid,
        channels=tuple(f"ch{i}" for i in range(len(values))),
        kind="sensitivity",
        unit="logit per intensity",
        target=target,
        score=1.5,
        gap=None,
        provenance=Provenance("net", "m", case, "i", "gradient"),
    )


def test_closed_form_of_every_column() -> None:
    labels = LabelMap.of(np.array([[0, 1, 1], [2, 2, 0]]), LINE, {1: "a", 2: "b", 5: "absent"})
    sums = RegionSums(labels, ["t"], ["x", "y"])
    x = [[1.0, -2.0, 3.0], [0.5, 0.5, -1.0]]
    y = [[0.0, 4.0, 0.0], [-6.0, 0.0, 2.0]]
    sums.add(0, np.array([x, y]), Box.whole(LINE.shape))

    frame = sums.table("case", "model", "method").frame
    norm = 8.0 + 12.0
    expected = pd.DataFrame(
        [
            ("background", "x", 2 / norm, 1.0, 1.0, -1.0, 2),
            ("background", "y", 2 / norm, 1.0, 2.0, 0.0, 2),
            ("a", "x", 5 / norm, 2.5, 3.0, -2.0, 2),
            ("a", "y", 4 / norm, 2.0, 4.0, 0.0, 2),
            ("b", "x", 1 / norm, 0.5, 1.0, 0.0, 2),
            ("b", "y", 6 / norm, 3.0, 0.0, -6.0, 2),
            ("absent", "x", 0.0, np.nan, 0.0, 0.0, 0),
            ("absent", "y", 0.0, np.nan, 0.0, 0.0, 0),
        ],
        columns=["region", "channel", "share", "mean", "positive", "negative", "n_voxels"],
    )
    pd.testing.assert_frame_equal(frame[expected.columns], expected)
    assert set(frame["case"]) == {"case"}
    assert set(frame["model"]) == {"model"}
    assert set(frame["method"]) == {"method"}
    assert set(frame["target"]) == {"t"}


def test_voxels_never_given_count_as_zero() -> None:
    labels = LabelMap.of(np.array([[0, 1, 1], [2, 2, 0]]), LINE)
    sums = RegionSums(labels, ["t"], ["x"])
    sums.add(0, np.array([[[-2.0, 6.0]]]), Box((0, 1), (1, 3)))
    np.testing.assert_array_equal(sums.shares()[0, :, 0], [0.0, 1.0, 0.0])
    assert sums.table("c", "m", "g").frame["mean"].tolist() == [0.0, 4.0, 0.0]


def test_a_map_of_zeros_has_no_shares_but_zero_means() -> None:
    labels = LabelMap.of(np.array([[0, 1, 1], [2, 2, 0]]), LINE)
    sums = RegionSums(labels, ["t", "other"], ["x"])
    sums.add(0, np.zeros((1, 2, 3)), Box.whole(LINE.shape))
    sums.add(1, np.ones((1, 2, 3)), Box.whole(LINE.shape))
    assert np.isnan(sums.shares()[0]).all()
    np.testing.assert_allclose(sums.shares()[1, :, 0], 1 / 3)
    frame = sums.table("c", "m", "g").frame
    assert frame["mean"].tolist() == [0.0] * 3 + [1.0] * 3


def test_overlapping_regions_count_a_shared_voxel_in_both_and_once_in_the_norm() -> None:
    a = np.array([[True, True, False], [False, False, False]])
    b = np.array([[False, True, True], [False, False, False]])
    labels = LabelMap.from_masks({"a": a, "b": b}, LINE)
    sums = RegionSums(labels, ["t"], ["x"])
    sums.add(0, np.array([[[1.0, -3.0, 1.0], [2.0, 2.0, 1.0]]]), Box.whole(LINE.shape))
    np.testing.assert_allclose(sums.shares()[0, :, 0], [5 / 10, 4 / 10, 4 / 10])
    frame = sums.table("c", "m", "g").frame
    assert frame["n_voxels"].tolist() == [3, 2, 2]
    assert frame["negative"].tolist() == [0.0, -3.0, -3.0]


@pytest.mark.parametrize("labels", [(0, 1, 2), (0, 3, 70_000)])
def test_sparse_labels_give_what_contiguous_ones_give(labels: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    places = rng.integers(0, 3, GRID.shape)
    values = rng.normal(size=(2, *GRID.shape))
    regions = LabelMap.of(np.array(labels)[places], GRID)
    sums = RegionSums(regions, ["t"], ["x", "y"])
    sums.add(0, values, Box.whole(GRID.shape))
    norm = np.abs(values).sum()
    for region in range(3):
        for channel in range(2):
            share = np.abs(values[channel][places == region]).sum() / norm
            assert sums.shares()[0, region, channel] == pytest.approx(share, rel=1e-12)


def test_float32_values_are_added_in_float64() -> None:
    grid = Grid((1000, 1001), np.eye(3))
    labels = LabelMap.of(np.zeros(grid.shape, np.uint8), grid)
    sums = RegionSums(labels, ["t"], ["x"])
    value = np.float32(0.1)
    sums.add(0, np.full((1, *grid.shape), value), Box.whole(grid.shape))
    positive = sums.table("c", "m", "g").frame["positive"][0]
    assert positive == pytest.approx(float(value) * grid.n_voxels, rel=1e-12)


def test_a_volume_of_many_slabs_is_summed_whole() -> None:
    grid = Grid((3, 1024, 1024), np.eye(4))
    labels = np.zeros(grid.shape, np.uint8)
    labels[1, :10] = 1
    labels[2, 5] = 2
    sums = RegionSums(LabelMap.of(labels, grid), ["t"], ["x"])
    values = np.zeros((1, *grid.shape), np.float32)
    values[0, 1, 3] = 1.0
    values[0, 2, 5] = -3.0
    values[0, 0, 0, 0] = 1024.0
    sums.add(0, values, Box.whole(grid.shape))
    np.testing.assert_allclose(sums.shares()[0, :, 0], [0.2, 0.2, 0.6])
    frame = sums.table("c", "m", "g").frame
    assert frame["n_voxels"].tolist() == [3 * 2**20 - 11 * 1024, 10 * 1024, 1024]


def test_wrong_use_is_refused() -> None:
    labels = LabelMap.of(np.array([[0, 1, 1], [2, 2, 0]]), LINE)
    with pytest.raises(TargetError, match="came twice: t"):
        RegionSums(labels, ["t", "t"], ["x"])
    sums = RegionSums(labels, ["t"], ["x"])
    with pytest.raises(GridError, match=r"\(1, 2, 3\), got \(2, 2, 3\)"):
        sums.add(0, np.zeros((2, 2, 3)), Box.whole(LINE.shape))
    with pytest.raises(GridError, match="outside"):
        sums.add(0, np.zeros((1, 2, 3)), Box((-1, 0), (1, 3)))
    with pytest.raises(MethodError, match="'t' holds NaN"):
        sums.add(0, np.full((1, 2, 3), np.inf), Box.whole(LINE.shape))
    sums.add(0, np.ones((1, 2, 3)), Box.whole(LINE.shape))
    with pytest.raises(GridError, match="given twice"):
        sums.add(0, np.ones((1, 1, 1)), Box((0, 0), (1, 1)))


def test_importance_equals_the_streamed_sums() -> None:
    rng = np.random.default_rng(5)
    labels = LabelMap.of(rng.integers(0, 4, GRID.shape), GRID)
    maps = [attribution(rng.normal(size=(2, *GRID.shape)), GRID, name) for name in ("b", "a")]
    sums = RegionSums(labels, ["b", "a"], ["ch0", "ch1"])
    for i, item in enumerate(maps):
        sums.add(i, item.values, Box.whole(GRID.shape))
    pd.testing.assert_frame_equal(
        importance(maps, labels).frame, sums.table("c", "net", "gradient").frame
    )
    one = importance(maps[1], labels).frame
    assert one["target"].unique().tolist() == ["a"]


def test_importance_takes_regions_of_another_grid_by_place() -> None:
    rng = np.random.default_rng(6)
    values = rng.normal(size=(1, *GRID.shape))
    labels = rng.integers(0, 3, GRID.shape)
    expected = importance(attribution(values, GRID), LabelMap.of(labels, GRID)).matrix()

    turned = GRID.reorient("SPR")  # other order and directions of axes, same place
    moved = np.zeros(turned.shape, labels.dtype)
    index = np.indices(turned.shape).reshape(3, -1).T
    source = np.rint(GRID.to_index(turned.to_world(index))).astype(int)
    moved[tuple(index.T)] = labels[tuple(source.T)]
    found = importance(attribution(values, GRID), LabelMap.of(moved, turned)).matrix()
    pd.testing.assert_frame_equal(found, expected)


def test_importance_of_several_cases_and_its_errors() -> None:
    labels = LabelMap.of(np.array([[0, 1, 1], [2, 2, 0]]), LINE)
    item = attribution(np.ones((1, 2, 3)), LINE)
    other = replace(item, provenance=replace(item.provenance, case="d"))
    assert importance([item, other], labels).frame["case"].unique().tolist() == ["c", "d"]
    with pytest.raises(LabelError, match="came twice"):
        importance([item, item], labels)
    with pytest.raises(TargetError, match="no attribution"):
        importance([], labels)
    far = LabelMap.of(
        labels.layers[0], Grid((2, 3), np.diag([1.0, 1.0, 1.0]) + 1000 * np.eye(3, k=2))
    )
    with pytest.raises(GridError):
        importance(item, far)
