from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from voxplain.space import write_nifti
from voxplain.testing import phantoms

# MONAI's LoadImage asks for a decoder of DICOM that may not be there; no DICOM is read here
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
QUICK = ("network={name: unet, arguments: {channels: [2, 3], strides: [2]}}",
         "crop.size=[6, 6, 8]", "epochs=2")  # fmt: skip


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A manifest of three cases with two labels."""
    monkeypatch.chdir(tmp_path)
    rows = ["case,image,label"]
    for i in range(3):
        grid = phantoms.oblique_grid((7, 9, 11), seed=i)
        labels = np.zeros(grid.shape, np.uint8)
        labels[1:4, 2:6, 3:8], labels[5, 2:7, 3:8] = 1, 2
        write_nifti(tmp_path / f"{i}.nii.gz", phantoms.volume(grid).data + labels, grid)
        write_nifti(tmp_path / f"{i}_labels.nii.gz", labels, grid)
        rows.append(f"c{i},{i}.nii.gz,{i}_labels.nii.gz")
    (tmp_path / "cases.csv").write_text("\n".join(rows))
    (tmp_path / "labels.json").write_text(json.dumps({"1": "rib_1", "2": "rib_2"}))
    return tmp_path / "cases.csv"


def words(data: Path, *more: str) -> list[str]:
    sets = [part for change in QUICK for part in ("--set", change)]
    return ["train", "--data", str(data), "--out", "made", "--device", "cpu", *sets, *more]


def test_a_dry_run_prints_the_recipe_and_writes_nothing(voxplain, data, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    done = voxplain(*words(data, "--dry-run", "--seed", "5"))
    assert done.exit_code == 0, done.output
    recipe, _, rest = done.stdout.partition("\n\n")
    assert yaml.safe_load(recipe)["crop"]["size"] == [6, 6, 8]
    assert yaml.safe_load(recipe)["seed"] == 5
    assert "cases       2 to train on, 1 to validate" in rest
    assert "classes     3: background, rib_1, rib_2" in rest
    assert "steps       4 in 2 epochs" in rest
    assert "a guess" in rest
    assert sorted(tmp_path.rglob("*")) == before


def test_a_training_ends_in_a_bundle_and_says_what_to_do_next(voxplain, data, tmp_path):
    (tmp_path / "classes.yaml").write_text("ribs: rib_*\n")
    done = voxplain(*words(data, "--classes", "classes.yaml", "--cache", "kept"))
    assert done.exit_code == 0, done.output
    assert "mean Dice" in done.stdout
    assert "on 1 validation cases" in done.stdout
    assert "voxplain explain --model made --image" in done.stdout
    files = {str(p.relative_to(tmp_path / "made")) for p in (tmp_path / "made").rglob("*.*")}
    assert files == {
        "configs/inference.json", "configs/metadata.json", "configs/train.yaml",
        "docs/README.md", "models/model.pt", "training/log.csv", "training/record.json",
    }  # fmt: skip
    record = json.loads((tmp_path / "made" / "training" / "record.json").read_text())
    assert record["classes"] == ["background", "ribs"]
    assert len(list((tmp_path / "kept").iterdir())) == 3
    assert voxplain(*words(data, "--classes", "classes.yaml", "--quiet")).stdout == ""


def test_an_interruption_says_that_the_same_command_continues(voxplain, data, monkeypatch):
    from voxplain.train.loop import Loop

    def stop(self: Any, *more: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Loop, "run", stop)
    done = voxplain(*words(data))
    assert done.exit_code == 2
    assert "voxplain: interrupted; the same command continues" in done.stderr


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--set", "epoch=3"), "did you mean 'epochs'"),
        (("--recipe", "agg2expp"), "did you mean 'agg2exp'"),
        (("--set", "classes.lung=lung*"), "lung: no label 'lung*'"),
        (("--classes", "none.yaml"), "cannot be read"),
        (("--layout", "bidz"), "did you mean 'bids'"),
        (("--gpus", "3", "--device", "cuda"), "GPUs were asked for"),
    ],
)
def test_a_mistake_is_one_plain_message(voxplain, data, tmp_path, more, said):
    done = voxplain(*words(data, *more))
    assert done.exit_code == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "made").exists()


def test_the_help_teaches(voxplain):
    done = voxplain("train", "--help")
    assert done.exit_code == 0
    for word in ("agg2exp", "ies", "unet", "--fresh", "--dry-run", "MONAI bundle", "rib_*"):
        assert word in done.stdout
