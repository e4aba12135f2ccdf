"""A study file opened: paths are absolute, and masks that nobody has are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cohort_studies import SHAPE, cases, model_folder

from voxplain.data import read_data
from voxplain.engine.study_file import StudyFile
from voxplain.errors import LabelError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder with a model, a manifest of three cases and a mask; the program runs in it."""
    model_folder(tmp_path / "model")
    found = cases(tmp_path / "images", 3)
    rows = [f"{one.name},{one.images[0].name},{one.label_files[0].name}" for one in found]
    (tmp_path / "images" / "manifest.csv").write_text("\n".join(["case,image,label", *rows]))
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks" / "c001_node.nii.gz").write_bytes(b"not read")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_paths_are_absolute(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = StudyFile.of(
        {"models": {"m": "model"}, "data": "images", "masks": {"node": "masks/{case}_node.nii.gz"}}
    )
    study = asked.open()
    assert study.models["m"].place == str(folder / "model")
    assert study.masks == {"node": f"{folder}/masks/{{case}}_node.nii.gz"}
    for case in study.cases:
        assert all(file.is_absolute() for file in (*case.images, *case.label_files))
    # as a worker sees it, which runs elsewhere
    monkeypatch.chdir("/")
    assert study.cases[0].read_image(["ct"]).grid.shape == SHAPE
    assert [study.masks_there(case) for case in study.cases] == [(), ("node",), ()]
    assert study.models["m"].load().answers


def test_a_task_of_a_family_is_no_path(folder: Path) -> None:
    assert len(read_data("images").cases) == 3
    with pytest.raises(LabelError, match="mask 'cyst': no case has a file") as caught:
        StudyFile.of(
            {
                "models": {"m": "model"}, "data": "images",
                "masks": {"node": "masks/{case}_node.nii.gz", "cyst": "msks/{case}.nii.gz"},
            }
        ).open()  # fmt: skip
    assert f"{folder}/msks/{{case}}.nii.gz" in str(caught.value)
    assert f"the first one looked for is {folder}/msks/c000.nii.gz" in str(caught.value)
