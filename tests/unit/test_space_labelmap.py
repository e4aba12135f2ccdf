"""Label maps: names, layers and what they refuse."""

from __future__ import annotations

import numpy as np
import pytest

from voxplain.errors import LabelError
from voxplain.space import LabelMap
from voxplain.testing import phantoms

GRID = phantoms.oblique_grid()


def layer(*labels: int, dtype=np.int32) -> np.ndarray:
    array = np.zeros(GRID.shape, dtype)
    array.flat[: len(labels)] = labels
    return array


def test_of_names_what_has_no_name():
    labels = LabelMap.of(layer(1, 1, 7), GRID, {7: "liver", 9: "heart"})
    assert labels.region_names == ("background", "label_1", "liver", "heart")
    assert labels.label("liver") == 7
    assert labels.mask("label_1").sum() == 2
    assert not labels.mask("heart").any()
    assert labels.mask("background").sum() == GRID.n_voxels - 3
    assert labels.is_disjoint


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int64, np.uint64])
def test_every_integer_type(dtype):
    labels = LabelMap.of(layer(1, 200, dtype=dtype), GRID)
    assert labels.region_names == ("background", "label_1", "label_200")
    assert labels.layers.dtype == dtype


def test_large_labels_need_no_large_table():
    labels = LabelMap.of(layer(2**40, 3, dtype=np.int64), GRID)
    assert labels.region_names == ("background", "label_3", f"label_{2**40}")


def test_whole_floats_and_booleans_are_labels():
    assert LabelMap.of(layer(2, dtype=np.float32), GRID).mask("label_2").sum() == 1
    assert LabelMap.of(layer(1, dtype=bool), GRID).mask("label_1").sum() == 1


@pytest.mark.parametrize("value", [0.5, np.nan, np.inf])
def test_fractions_are_refused(value):
    with pytest.raises(LabelError, match="whole numbers"):
        LabelMap.of(layer(value, dtype=np.float64), GRID)


def test_masks_may_overlap():
    left, right = layer(1, 1, 0).astype(bool), layer(0, 1, 1).astype(bool)
    labels = LabelMap.from_masks({"left": left, "right": right}, GRID)
    assert not labels.is_disjoint
    np.testing.assert_array_equal(labels.mask("left"), left)
    np.testing.assert_array_equal(labels.mask("right"), right)
    np.testing.assert_array_equal(labels.mask("background"), ~(left | right))


@pytest.mark.parametrize(
    ("layers", "names", "message"),
    [
        (layer(3)[None], {1: "liver"}, r"label 3 occurs in the map and has no name.*\[0, 1\]"),
        (layer(-1)[None], {1: "liver"}, "not negative, got -1"),
        (np.stack([layer(1), layer(0, 1)]), {1: "liver"}, r"label 1 \(liver\) occurs in two"),
        (layer(1)[None], {1: "liver", 2: "liver"}, "two labels have one name"),
        (layer(1), {1: "liver"}, "labels must be"),
        (layer(1)[:0], {}, "labels must be"),
        (layer(1, dtype=float)[None], {1: "liver"}, "integers, got float64"),
    ],
)
def test_refuses(layers, names, message):
    with pytest.raises(LabelError, match=message):
        LabelMap(layers, GRID, names)


def test_masks_of_another_shape_are_refused():
    with pytest.raises(LabelError, match=r"mask 'a' must have the grid's shape \(5, 7, 11\)"):
        LabelMap.from_masks({"a": np.ones((5, 7, 12), bool)}, GRID)
    with pytest.raises(LabelError, match="no mask"):
        LabelMap.from_masks({}, GRID)


def test_a_wrong_name_suggests_the_nearest():
    labels = phantoms.labels()
    with pytest.raises(LabelError, match="no region 'orgn_2'; did you mean 'organ_2'"):
        labels.label("orgn_2")
