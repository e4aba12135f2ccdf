"""Boxes: the half-open rule, faults with row and column, 2D and 3D."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from voxplain.assess.boxes import box_masks, read_boxes
from voxplain.errors import DataError, LabelError
from voxplain.testing.phantoms import oblique_grid

FLAT = oblique_grid((7, 11), (0.7, 1.1))
SOLID = oblique_grid((5, 7, 11))


def table(folder: Path, text: str) -> Path:
    file = folder / "boxes.csv"
    file.write_text(text)
    return file


def test_ends_are_not_in_the_box_and_boxes_unite(tmp_path: Path) -> None:
    boxes = read_boxes(
        table(
            tmp_path,
            "case,target,i0,j0,i1,j1,reader\n007,opacity,1,2,4,4,A\n007,opacity,3,3,7,11,B\n"
            "007,mass,0,0,1,1,A\nother,mass,0,0,900,900,A\n",
        )
    )
    masks = box_masks(boxes, "007", FLAT)
    assert list(masks) == ["opacity", "mass"]
    expected = np.zeros((7, 11), bool)
    expected[1:4, 2:4] = True
    expected[3:7, 3:11] = True
    np.testing.assert_array_equal(masks["opacity"], expected)
    assert masks["opacity"].sum() == 3 * 2 + 4 * 8 - 1
    assert masks["mass"].sum() == 1
    assert masks["mass"][0, 0]
    assert box_masks(boxes, "healthy", FLAT) == {}


def test_columns_stand_in_any_order_in_3d_and_depth_1_is_2d(tmp_path: Path) -> None:
    file = table(tmp_path, "k1,k0,j1,j0,i1,i0,target,case\n11,4,6,2,4,1,a,p\n")
    masks = box_masks(read_boxes(file), "p", SOLID)
    expected = np.zeros(SOLID.shape, bool)
    expected[1:4, 2:6, 4:11] = True
    np.testing.assert_array_equal(masks["a"], expected)
    thin = box_masks(
        read_boxes(table(tmp_path, "case,target,i0,j0,k0,i1,j1,k1\np,a,1,2,0,4,6,1\n")),
        "p",
        oblique_grid((7, 11, 1)),
    )
    flat = box_masks(
        read_boxes(table(tmp_path, "case,target,i0,j0,i1,j1\np,a,1,2,4,6\n")), "p", FLAT
    )
    np.testing.assert_array_equal(thin["a"][..., 0], flat["a"])


def test_all_faults_of_a_file_at_once(tmp_path: Path) -> None:
    file = table(
        tmp_path,
        "case,target,i0,j0,i1,j1\np,a,0,0,2,2\n,a,0,0,2,2\np,b,1.5,0,2,\np,a,-1,3,2,3\nq,a,0,0,1,1\n",
    )
    with pytest.raises(DataError) as caught:
        read_boxes(file, cases=["p"], targets=["a"])
    message = str(caught.value)
    assert message.startswith(f"{file}: 7 faults")
    for fault in (
        "row 3, case is empty", "row 4, target is 'b', which is not known", "row 4, i0 is '1.5'",
        "row 4, j1 is ''", "row 5, i0 is -1, expected at least 0",
        "row 5, j1 is 3, expected more than j0, 3", "row 6, case is 'q', which is not known",
    ):  # fmt: skip
        assert fault in message


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("case,target,i0,j0,k0,i1,j1\np,a,0,0,0,1,1\n", "missing: k1 among case, target"),
        ("case,i0,j0,i1,j1\np,0,0,1,1\n", "missing: target"),
        ("case,target,i0,j0,i1,j1\n", "holds no box"),
        ("", "cannot be read as a table"),
    ],
)
def test_what_is_no_table_of_boxes(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_boxes(table(tmp_path, text))


def test_boxes_outside_of_the_image_are_faults(tmp_path: Path) -> None:
    boxes = read_boxes(
        table(tmp_path, "case,target,i0,j0,i1,j1\np,a,0,0,7,11\np,a,0,0,8,11\np,b,7,0,9,12\n")
    )
    with pytest.raises(DataError) as caught:
        box_masks(boxes, "p", FLAT)
    message = str(caught.value)
    assert "boxes of case 'p': 3 faults" in message
    assert "row 3, i0, i1 are 0, 8, expected 0 ≤ i0 < i1 ≤ 7" in message
    assert "row 4, j0, j1 are 0, 12" in message
    with pytest.raises(DataError, match="2 axes, the image has 3"):
        box_masks(boxes, "p", SOLID)
    with pytest.raises(LabelError, match="missing: j1"):
        box_masks(boxes.drop(columns="j1"), "p", FLAT)
