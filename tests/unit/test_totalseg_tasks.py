"""Tasks of TotalSegmentator: where their weights are looked for, and which are refused."""

from __future__ import annotations

import contextlib
import io
import itertools
from pathlib import Path

import numpy as np
import pytest

from voxplain.errors import ModelError
from voxplain.models import load_model
from voxplain.models.nnunet_network import _overriding_trainer
from voxplain.models.totalseg import _trainer as trainer_of
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
    with pytest.raises(ModelError, match="its program fetches no such network"):
        load_model("totalseg:total_highres_test")


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
        ("test", "first crops the image to body,"),
        ("breasts_fast", "no TotalSegmentator task 'breasts_fast'"),
        ("liver_vessels", "first crops the image to liver"),
        ("body", "removes small pieces of the result"),
        ("appendicular_bones", "removes auxiliary labels"),
    ],
)
def test_tasks_that_are_refused(task: str, sentence: str) -> None:
    with pytest.raises(ModelError, match=sentence):
        load_model(f"totalseg:{task}")


def test_every_other_free_task_is_understood(weights: Path) -> None:
    """Spacing, folds and trainers are those that TotalSegmentator's own interface takes."""
    from totalsegmentator.map_tasks_config import TASK_CONFIGS
    from totalsegmentator.python_api import get_task_config

    n_read = 0
    for name, mode in itertools.product(TASK_CONFIGS, ("", "_fast", "_fastest")):
        raw = TASK_CONFIGS[name]
        if raw.get("commercial") or (mode and mode[1:] not in raw.get("sub_modes", {})):
            continue
        with contextlib.redirect_stdout(io.StringIO()):
            wanted = get_task_config(name, fast=mode == "_fast", fastest=mode == "_fastest")
        if wanted["crop"] or name in ("body", "vertebrae_pp", "vertebrae_pp_refined"):
            with pytest.raises(ModelError, match="which is not part of the network"):
                read_task(name + mode)
            continue
        folder = f"{wanted['trainer']}__nnUNetPlans__{wanted['model']}"
        for task_id in np.atleast_1d(wanted["task_id"]):
            (weights / f"Dataset{task_id:03d}_X" / folder).mkdir(parents=True, exist_ok=True)
        task = read_task(name + mode)
        n_read += 1
        assert task.spacing == (
            wanted["resample"] and tuple(np.broadcast_to(wanted["resample"], 3))
        )
        assert task.folds == ("all" if wanted["folds"] is None else tuple(wanted["folds"]))
        assert task.trainer == wanted["trainer"]
        trainer = trainer_of(task.trainer) or task.trainer
        assert _overriding_trainer(trainer, trust_code=False) is None  # built from the plans
    assert n_read > 10
