"""Names of the structures in what TotalSegmentator wrote."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from voxplain.cli.job import _regions
from voxplain.data.totalseg_labels import read_totalseg_labels
from voxplain.errors import GridError, LabelError
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


def test_a_folder_of_masks(tmp_path: Path) -> None:
    for name, label in (("spleen", 1), ("liver", 5), ("heart", 9)):
        mask = (labels() == label).astype(np.uint8)
        write_nifti(tmp_path / f"{name}.nii.gz", mask[None], GRID)
    found = _regions(f"totalseg:{tmp_path}")
    assert found is not None
    assert set(found.region_names) == {"background", "spleen", "liver", "heart"}
    np.testing.assert_array_equal(found.mask("liver"), labels() == 5)
    assert not found.mask("heart").any()


def test_masks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no masks there"):
        read_totalseg_labels(str(tmp_path))
    write_nifti(tmp_path / "a.nii.gz", labels()[None], GRID.crop((0, 0, 1), GRID.shape))
    write_nifti(tmp_path / "b.nii.gz", (labels() == 1).astype(np.uint8)[None], GRID)
    with pytest.raises((GridError, LabelError)):
        read_totalseg_labels(str(tmp_path))
