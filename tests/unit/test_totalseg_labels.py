"""Names of the structures in what TotalSegmentator wrote."""

from __future__ import annotations

import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

from voxplain.cli.job import _regions
from voxplain.data.totalseg_labels import read_totalseg_labels
from voxplain.errors import GridError, ImageError, LabelError, MissingExtraError
from voxplain.space.nifti import write_nifti
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((5, 7, 11))


def labels() -> np.ndarray:
    values = np.zeros(GRID.shape, np.uint8)
    values[1:3, 2:4], values[3:, 5:] = 1, 5
    return values


def test_names_in_the_header_are_those_that_totalsegmentator_writes(tmp_path: Path) -> None:
    program = pytest.importorskip("totalsegmentator.nifti_ext_header")
    image = nibabel.Nifti1Image(labels(), GRID.affine)
    program.save_multilabel_nifti(image, tmp_path / "s.nii.gz", {1: "big <node>", 5: "vein & co"})
    found = read_totalseg_labels(str(tmp_path / "s.nii.gz"))
    assert found.names == {0: "background", 1: "big <node>", 5: "vein & co"}
    np.testing.assert_array_equal(found.layers[0], labels())
    assert found.grid.matches(GRID)


def test_a_file_without_names_is_of_a_task(tmp_path: Path) -> None:
    pytest.importorskip("totalsegmentator")
    file = tmp_path / "s.nii.gz"
    write_nifti(file, labels()[None], GRID)
    found = read_totalseg_labels(str(file))
    assert found.names[1] == "spleen"
    assert found.names[5] == "liver"
    assert len(found.names) == 118  # absent structures are named
    assert not found.mask("heart").any()
    assert read_totalseg_labels(f"{file}#body").names[1] == "body_trunc"
    with pytest.raises(LabelError, match="no TotalSegmentator task 'totall'; did you mean 'total'"):
        read_totalseg_labels(f"{file}#totall")
    write_nifti(tmp_path / "a#b.nii.gz", labels()[None], GRID)  # the mark may be in a name
    assert read_totalseg_labels(str(tmp_path / "a#b.nii.gz")).names[1] == "spleen"


def test_labels_that_the_names_do_not_tell_keep_their_number(tmp_path: Path) -> None:
    program = pytest.importorskip("totalsegmentator.nifti_ext_header")
    image = nibabel.Nifti1Image(labels(), GRID.affine)
    program.save_multilabel_nifti(image, tmp_path / "s.nii", {1: "liver", 3: "heart"})
    found = read_totalseg_labels(str(tmp_path / "s.nii"))
    assert found.names == {0: "background", 1: "liver", 3: "heart", 5: "label_5"}


def test_names_need_the_package_only_where_the_file_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = pytest.importorskip("totalsegmentator.nifti_ext_header")
    image = nibabel.Nifti1Image(labels(), GRID.affine)
    program.save_multilabel_nifti(image, tmp_path / "named.nii.gz", {1: "liver", 5: "heart"})
    write_nifti(tmp_path / "plain.nii.gz", labels()[None], GRID)
    monkeypatch.setitem(sys.modules, "totalsegmentator", None)
    monkeypatch.setitem(sys.modules, "totalsegmentator.map_to_binary", None)
    assert read_totalseg_labels(str(tmp_path / "named.nii.gz")).label("heart") == 5
    with pytest.raises(MissingExtraError, match=r"voxplain\[totalseg\]"):
        read_totalseg_labels(str(tmp_path / "plain.nii.gz"))


def test_a_damaged_file_is_told_first(tmp_path: Path) -> None:
    file = tmp_path / "s.nii.gz"
    write_nifti(file, labels()[None], GRID)
    file.write_bytes(file.read_bytes()[:60])
    with pytest.raises(ImageError, match="cannot be read as NIfTI"):
        read_totalseg_labels(str(file))
    with pytest.raises(ImageError, match="no such file"):
        read_totalseg_labels(str(tmp_path / "t.nii.gz"))
    with pytest.raises(ImageError, match="no such file"):
        read_totalseg_labels(f"{tmp_path / 't.nii.gz'}#total")


def test_a_folder_of_masks(tmp_path: Path) -> None:
    for name, label in (("spleen", 1), ("liver", 5), ("heart", 9)):
        mask = (labels() == label).astype(np.uint8)
        write_nifti(tmp_path / f"{name}.nii.gz", mask[None], GRID)
    found = _regions(f"totalseg:{tmp_path}")
    assert found is not None
    assert set(found.region_names) == {"background", "spleen", "liver", "heart"}
    np.testing.assert_array_equal(found.mask("liver"), labels() == 5)
    assert not found.mask("heart").any()


def test_masks_that_overlap_keep_all_their_voxels(tmp_path: Path) -> None:
    for name, mask in (("body", labels() > 0), ("liver", labels() == 5), ("skin", labels() == 1)):
        write_nifti(tmp_path / f"{name}.nii.gz", mask.astype(np.uint8)[None], GRID)
    (tmp_path / "statistics.json").write_text("{}")
    (tmp_path / "._body.nii.gz").write_bytes(b"of another system")
    found = read_totalseg_labels(str(tmp_path))
    assert len(found.layers) == 2
    np.testing.assert_array_equal(found.mask("body"), labels() > 0)
    np.testing.assert_array_equal(found.mask("liver"), labels() == 5)
    with pytest.raises(LabelError, match="masks are named by their files; leave #total out"):
        read_totalseg_labels(f"{tmp_path}#total")


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no masks there"):
        read_totalseg_labels(str(tmp_path))
    mask = (labels() == 1).astype(np.uint8)[None]
    write_nifti(tmp_path / "a.nii.gz", mask, GRID.crop((0, 0, 1), GRID.shape))
    write_nifti(tmp_path / "b.nii.gz", mask, GRID)
    with pytest.raises(GridError, match="on different grids"):
        read_totalseg_labels(str(tmp_path))
    write_nifti(tmp_path / "a.nii.gz", labels()[None], GRID)
    with pytest.raises(LabelError, match="a mask of one structure"):
        read_totalseg_labels(str(tmp_path))
