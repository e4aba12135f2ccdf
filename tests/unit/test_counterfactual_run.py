"""Whole runs, small: from patients to a page; continued, changed, and refused."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from voxplain.cli.app import app
from voxplain.counterfactual.config import Config
from voxplain.counterfactual.config_file import config_text, presets, read_config
from voxplain.counterfactual.evaluated_runs import evaluate_runs
from voxplain.counterfactual.run import open_run
from voxplain.counterfactual.training import train_run
from voxplain.data import read_data
from voxplain.demo.kidneys import write_kidney_patients
from voxplain.errors import DataError, ModelError, TrainingError
from voxplain.models import load_model
from voxplain.space import read_image

SMALL = (
    "data.size=[32,32]",
    "data.abnormal.synthetic.radius_px=[2.0,3.0]",
    "data.abnormal.synthetic.min_organ_px=8",
    "classifier.steps=40",
    "judge.steps=40",
    "generators.coin.steps=12",
    "generators.coin.log_every=4",
    "generators.coin.sample_every=12",
    "generators.coin.validate_every=6",
    "evaluation.methods=[layer_cam]",
    "evaluation.max_slices=6",
    "evaluation.n_boot=50",
)


def config(*changes: str) -> Config:
    return read_config("quick", [*SMALL, *changes])


@pytest.fixture(scope="module")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kidney_patients(tmp_path_factory.mktemp("patients"), 6, 3, 3, seed=0)


@pytest.fixture(scope="module")
def trained(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "run"
    train_run(config(), read_data(patients), out, device="cpu")
    return out


def run_cli(*words: str | Path) -> tuple[int, str]:
    result = CliRunner().invoke(app, [str(word) for word in words])
    return result.exit_code, result.output


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_valid_and_reads_back(name: str, tmp_path: Path) -> None:
    settings = read_config(name)
    (tmp_path / "config.yaml").write_text(config_text(settings))
    assert read_config(str(tmp_path / "config.yaml")) == settings


def test_a_run_holds_what_is_needed_to_use_it(trained: Path) -> None:
    run = open_run(trained)
    assert run.names == ("coin",)
    counts = run.about_data["parts"]
    assert counts["train"]["patients"] == 6
    assert 0 < counts["test"]["abnormal"] < counts["test"]["slices"]
    threshold = run.threshold("coin")
    assert threshold is not None
    assert 0 <= threshold <= 1
    test = run.slices("test")
    assert test.clean is not None
    changed = (test.images != test.clean).any((1, 2, 3))
    np.testing.assert_array_equal(changed, test.labels.astype(bool))
    assert set(run.logs()) == {"classifier", "judge", "coin"}
    judge = run.judge()
    assert judge is not None
    assert judge.sha256 != run.classifier().sha256


def test_the_classifier_is_a_model_like_any_other(trained: Path, patients: Path) -> None:
    """Its card takes slices in HU; the run gives it the same pictures in [−1, 1]."""
    run, model = open_run(trained), load_model(trained / "classifier")
    pictures = run.slices("validation").images[:5]
    preparation = run.preparation
    low, high = preparation.low, preparation.high
    with torch.no_grad():
        wanted = run.classifier().logit(torch.from_numpy(np.array(pictures)))
        hu = low + (torch.from_numpy(np.array(pictures)) + 1) / 2 * (high - low)
        back = 2 * (hu - low) / (high - low) - 1
        found = model.forward(back)[:, 0]
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_a_finished_run_is_kept(trained: Path, patients: Path) -> None:
    weights = trained / "generators" / "coin" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    train_run(config(), read_data(patients), trained, device="cpu")
    assert weights.stat().st_mtime_ns == before


def test_an_interrupted_run_ends_as_one_that_was_not(
    trained: Path, patients: Path, tmp_path: Path
) -> None:
    class StopError(Exception):
        pass

    stops = {"judge": 25, "coin": 7}

    def progress(now: object) -> None:
        what, step = now.what, now.step  # type: ignore[attr-defined]
        if what in stops and step >= stops[what]:
            del stops[what]
            raise StopError

    out, settings = tmp_path / "run", config("generators.coin.save_every=100")
    for _ in range(2):
        with pytest.raises(StopError):
            train_run(settings, read_data(patients), out, device="cpu", progress=progress)
        with pytest.raises(DataError, match="has not ended"):
            open_run(out)
    train_run(settings, read_data(patients), out, device="cpu")
    for file in ("classifier", "judge", "generators/coin"):
        one, other = (folder / file / "weights.safetensors" for folder in (trained, out))
        assert one.read_bytes() == other.read_bytes(), file


def test_other_data_or_settings_are_refused_by_name(trained: Path, patients: Path) -> None:
    cohort = read_data(patients)
    with pytest.raises(TrainingError, match="settings of the data"):
        train_run(config("data.plane=coronal"), cohort, trained, device="cpu")
    with pytest.raises(TrainingError, match="learning_rate"):
        train_run(config("generators.coin.learning_rate=0.1"), cohort, trained, device="cpu")


def test_evaluation_is_written_kept_and_pooled(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    found = evaluate_runs([trained, other], tmp_path / "both", device="cpu")
    assert list(found) == ["run", "other"]
    first = found["run"].tables["methods"]
    assert set(first["method"]) == {"coin", "layer_cam", "intensity"}
    pd.testing.assert_frame_equal(
        first.drop(columns="seconds"), found["other"].tables["methods"].drop(columns="seconds")
    )
    runs = pd.read_csv(tmp_path / "both" / "runs.csv")
    assert (runs["n_runs"].isin([0, 2])).all()
    assert runs["sd"].dropna().max() == pytest.approx(0, abs=1e-12)
    page = (tmp_path / "both" / "report.html").read_text()
    assert "counterfactual" in page
    again = evaluate_runs([trained, other], tmp_path / "both", device="cpu")
    assert again["run"].provenance["created"] == found["run"].provenance["created"]
    changed = evaluate_runs(
        [trained], tmp_path / "one", ["evaluation.fixed_counterfactual=0.1"], device="cpu"
    )
    row = changed["run"].tables["methods"].set_index("method").loc["coin"]
    assert row["threshold_fixed"] == 0.1


def test_evaluation_changes_nothing_but_itself(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="seed=3"):
        evaluate_runs([trained], tmp_path, ["seed=3"])
    with pytest.raises(TrainingError, match="fixed_counterfactuals"):
        evaluate_runs([trained], tmp_path, ["evaluation.fixed_counterfactuals=3"])


def test_command_line_applies_a_run_to_a_volume(
    trained: Path, patients: Path, tmp_path: Path
) -> None:
    image = next(patients.parent.glob("*_08000.nii.gz"))
    code, text = run_cli(
        "counterfactual", "apply", "--run", trained, "--image", image, "--out", tmp_path
    )
    assert code == 0, text
    before = read_image(image)
    (written,) = tmp_path.rglob("*_counterfactual.nii.gz")
    after = read_image(written)
    assert after.grid.matches(before.grid)
    assert not np.array_equal(after.data, before.data)


@pytest.mark.parametrize(
    ("changes", "fault", "message"),
    [
        (["data.organ=[kidneys]"], TrainingError, "kidneys"),
        (["data.min_organ_pixels=100000"], DataError, "kidney"),
        (["data.size=[40,40]"], TrainingError, "divisible by 16"),
        (["data.intensity.window=[3000,4000]"], DataError, "every slice is constant"),
        (["data.abnormal.synthetic.min_organ_px=4000"], DataError, "at least 4000 pixels"),
        (["classifier.learning_rate=1e30"], TrainingError, "loss"),
        (["generators.coin.learning_rate=1e30"], TrainingError, "learning"),
        (["classifier.card=nowhere"], ModelError, "nowhere"),
    ],
)
def test_what_cannot_be_trained_is_said(
    changes: Sequence[str], fault: type[Exception], message: str, patients: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(fault, match=message):
        train_run(config(*changes), read_data(patients), tmp_path / "run", device="cpu")


def test_settings_that_contradict_are_all_named() -> None:
    with pytest.raises(TrainingError) as caught:
        read_config("quick", ["data.abnormal={}", "judge.seed=0", "generators.coin.widht=3"])
    text = str(caught.value)
    assert "exactly one of synthetic, labels, column" in text
    assert "widht" in text
    assert "width" in text
