"""Tasks of TotalSegmentator: where their weights are looked for, and which are refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from voxplain.errors import ModelError
from voxplain.models import load_model
from voxplain.models.totalseg_tasks import read_task, weights_folder

pytest.importorskip("totalsegmentator")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    return tmp_path / "nnunet" / "results"


def test_total_has_five_networks_for_117_structures(weights: Path) -> None:
    for task_id in (291, 292, 293, 294, 295):
        name = "nnUNetTrainerNoMirroring__nnUNetPlans__3d_fullres"
        (weights / f"Dataset{task_id}_Part" / name).mkdir(parents=True)
    task = read_task("total")
    assert [len(names) for _, names in task.parts] == [25, 27, 19, 24, 27]
    structures = [name for _, names in task.parts for name in names[1:]]
    assert sorted(structures) == sorted(task.class_names[1:])
    assert len(structures) == 117
    assert task.class_names[5] == "liver"
    assert (task.spacing, task.step) == ((1.5, 1.5, 1.5), 0.8)


def test_missing_weights_are_told_with_the_command_that_fetches_them(weights: Path) -> None:
    with pytest.raises(ModelError) as caught:
        load_model("totalseg:total_fast")
    for part in ("Dataset297_…", str(weights), "totalseg_download_weights -t total_fast",
                 "TOTALSEG_WEIGHTS_PATH"):  # fmt: skip
        assert part in str(caught.value)
    (weights / "Dataset297_X" / "other").mkdir(parents=True)
    with pytest.raises(ModelError, match="there is other; fetch it with"):
        load_model("totalseg:total_fast")
    assert sorted(p.name for p in weights.iterdir()) == ["Dataset297_X"]  # nothing was removed


def test_the_folder_of_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.delenv("TOTALSEG_HOME_DIR", raising=False)
    assert weights_folder() == Path.home() / ".totalsegmentator" / "nnunet" / "results"
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path))
    assert weights_folder() == tmp_path / "nnunet" / "results"
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "w"))
    assert weights_folder() == tmp_path / "w"


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        ("totl", "no TotalSegmentator task 'totl'; did you mean 'total'"),
        ("breasts_fast", "no TotalSegmentator task 'breasts_fast'"),
        ("liver_vessels", "first crops the image to liver"),
        ("body", "removes small pieces of the result"),
        ("appendicular_bones", "removes auxiliary labels"),
    ],
)
def test_tasks_that_are_refused(task: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_model(f"totalseg:{task}")
