"""Whole runs, small: from patients to a page; continued, changed, and refused."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from voxplain.cli.app import app
from voxplain.counterfactual import training, training_log
from voxplain.counterfactual.classifier import picture_logits
from voxplain.counterfactual.config import Config
from voxplain.counterfactual.config_file import config_text, presets, read_config
from voxplain.counterfactual.evaluated_runs import evaluate_runs
from voxplain.counterfactual.run import open_run
from voxplain.counterfactual.training import Progress, train_run
from voxplain.data import read_data
from voxplain.demo.kidneys import write_kidney_patients
from voxplain.errors import DataError, MissingExtraError, ModelError, TrainingError
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


SHORT = ("classifier.steps=4", "judge.steps=4")


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


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


class StopError(Exception):
    pass


def files_of(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


def test_quality_of_classifiers_is_recorded_and_told(copied: Path) -> None:
    run = open_run(copied)
    validation, judge = run.slices("validation"), run.judge()
    assert judge is not None
    for name, one in (("classifier", run.classifier()), ("judge", judge)):
        logits = picture_logits(one.network, validation.images)
        wanted = roc_auc_score(validation.labels, logits)
        assert run.about_classifiers[name]["auroc"] == pytest.approx(wanted, abs=1e-9)
        assert run.about_classifiers[name]["sha256"] == one.sha256
    record = json.loads((copied / "record.json").read_text())
    for classifier, judge_, n_notes in ((0.9, 0.7, 0), (0.9, 0.69, 1), (0.5, 0.6, 2)):
        record["classifiers"]["classifier"]["auroc"] = classifier
        record["classifiers"]["judge"]["auroc"] = judge_
        (copied / "record.json").write_text(json.dumps(record))
        notes = open_run(copied).notes
        assert len([note for note in notes if "AUROC" in note]) == n_notes
    assert any("judge hardly tells" in note and "AUROC 0.60" in note for note in notes)


def test_a_finished_run_is_kept(
    copied: Path, patients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if what does not decide the weights is another: it is in the configuration."""
    weights = copied / "generators" / "coin" / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    hashed: list[str] = []
    known = training.case_sha256
    monkeypatch.setattr(
        training, "case_sha256", lambda case: (hashed.append(case.name), known(case))[1]
    )
    changes = [f"generators.coin.{key}_every=5" for key in ("log", "save", "sample")]
    cohort = read_data(patients)
    train_run(config(*changes, "evaluation.n_boot=70"), cohort, copied, device="cpu")
    assert weights.stat().st_mtime_ns == before
    assert sorted(hashed) == sorted(case.name for case in cohort)  # each once
    now = open_run(copied).config
    assert now.evaluation.n_boot == 70
    assert now.generators["coin"].save_every == 5

    def stopped(*_: object, **__: object) -> None:
        raise StopError

    monkeypatch.setattr(training, "repaired", stopped)
    with pytest.raises(StopError):
        train_run(now, cohort, copied, device="cpu")
    with pytest.raises(DataError, match="without its record"):
        open_run(copied)


def test_an_interrupted_run_ends_as_one_that_was_not(
    trained: Path, patients: Path, tmp_path: Path
) -> None:
    """Ctrl-C during a generator saves its state; an error loses what came since the last."""
    told = []

    def progress(now: object) -> None:
        what, step = now.what, now.step  # type: ignore[attr-defined]
        told.append((what, step))
        if told.count(("judge", 25)) == 1 and (what, step) == ("judge", 25):
            raise StopError
        if told.count(("coin", 7)) == 1 and (what, step) == ("coin", 7):
            signal.raise_signal(signal.SIGINT)

    out, settings = tmp_path / "run", config("generators.coin.save_every=100")
    for fault in (StopError, KeyboardInterrupt):
        with pytest.raises(fault):
            train_run(settings, read_data(patients), out, device="cpu", progress=progress)
        with pytest.raises(DataError, match="has not ended"):
            open_run(out)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    told.clear()
    train_run(settings, read_data(patients), out, device="cpu", progress=told_to(told))
    assert next(step for what, step in told if what == "coin") == 9
    for file in ("classifier", "judge", "generators/coin"):
        one, other = (folder / file / "weights.safetensors" for folder in (trained, out))
        assert one.read_bytes() == other.read_bytes(), file


def told_to(told: list[tuple[str, int]]) -> Progress:
    return lambda now: told.append((now.what, now.step))


def test_a_refused_command_changes_nothing(
    copied: Path, patients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_log, "find_spec", lambda name: None)
    cohort, before = read_data(patients), files_of(copied)
    for change, words in (
        ("data.plane=coronal", "settings of the data"),
        ("generators.coin.learning_rate=0.1", "generators.coin.learning_rate was 0.002, now 0.1"),
        ("classifier.steps=41", "classifier.steps was 40, now 41"),
        ("judge.weight_decay=0.5", "judge.weight_decay"),
        ("amp=bf16", "amp was 'auto', now 'bf16'"),
        ("tensorboard=true", "pip install tensorboard"),
    ):
        fault = MissingExtraError if "tensorboard" in change else TrainingError
        with pytest.raises(fault, match=words):
            train_run(config(change), cohort, copied, device="cpu")
        assert files_of(copied) == before, change
    record = copied / "generators" / "coin" / "generator.json"
    record.write_text(record.read_text().replace('"amp": "None"', '"amp": "torch.float16"'))
    before = files_of(copied)
    with pytest.raises(TrainingError, match=r"amp was 'torch\.float16', now 'None'"):
        train_run(config("evaluation.n_boot=70"), cohort, copied, device="cpu")
    assert files_of(copied) == before


def test_begun_anew_and_not_ended_it_is_no_run(copied: Path, patients: Path) -> None:
    def progress(now: object) -> None:
        if now.what == "classifier":  # type: ignore[attr-defined]
            raise StopError

    cohort = read_data(patients)
    with pytest.raises(StopError):
        train_run(config("seed=5"), cohort, copied, resume=False, device="cpu", progress=progress)
    assert not list(copied.glob("generators/*/*.json"))
    assert not (copied / "classifier" / "weights.safetensors").exists()
    with pytest.raises(DataError, match="has not ended"):
        open_run(copied)
    with pytest.raises(TrainingError, match="settings of the data"):
        train_run(config(), cohort, copied, device="cpu")


def test_parts_that_do_not_belong_together_are_refused(copied: Path) -> None:
    judge, classifier = (
        (copied / name / "weights.safetensors") for name in ("judge", "classifier")
    )
    data = json.loads((copied / "data.json").read_text())
    data["identity"]["images"] = "0"
    (copied / "data.json").write_text(json.dumps(data))
    classifier.write_bytes(judge.read_bytes())
    with pytest.raises(DataError, match="generator coin was trained with other images") as caught:
        open_run(copied)
    assert "classifier was another one in training" in str(caught.value)
    assert "judge" not in str(caught.value)


def test_an_existing_classifier_is_found_from_anywhere_and_missed_if_changed(
    trained: Path, patients: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("classifier", "judge"):
        shutil.copytree(trained / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    out, cohort = tmp_path / "run", read_data(patients)
    settings = config(
        "classifier.card=classifier", "data.intensity.model=classifier", "judge=null",
        "data.intensity.window=[-1,1]", "generators.coin.steps=2", "generators.coin.batch=2",
        "generators.coin.validate_every=2",
    )  # fmt: skip
    train_run(settings, cohort, out, device="cpu")
    monkeypatch.chdir("/")
    run = open_run(out)
    assert run.config.classifier.card == str(tmp_path / "classifier")
    assert set(run.logs()) == {"coin"}
    card = tmp_path / "classifier" / "model.yaml"
    text = card.read_text()
    card.write_text(text.replace("- 300.0", "- 301.0"))
    with pytest.raises(DataError, match="which prepares the images, was changed since"):
        open_run(out)
    card.write_text(text)
    open_run(out)
    shutil.copy(tmp_path / "judge" / "weights.safetensors", tmp_path / "classifier")
    with pytest.raises(DataError, match="classifier was another one in training"):
        open_run(out)
    before = files_of(out)
    with pytest.raises(TrainingError, match="model of the intensities"):
        train_run(run.config, cohort, out, device="cpu")
    assert files_of(out) == before


def test_thresholds_are_tuned_in_full_precision_and_tensorboard_reaches_the_training(
    copied: Path, patients: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, exact = [], []
    known = training.train_generator, training.repaired
    monkeypatch.setattr(
        training, "train_generator",
        lambda *args, tensorboard, **kwargs: (asked.append(tensorboard), known[0](*args, **kwargs)),
    )  # fmt: skip
    monkeypatch.setattr(
        training, "repaired",
        lambda *args, **kwargs: (
            exact.append(not torch.backends.cudnn.allow_tf32), known[1](*args, **kwargs)
        )[1],
    )  # fmt: skip
    monkeypatch.setattr(training_log, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    train_run(config("tensorboard=true"), read_data(patients), copied, device="cpu")
    assert asked == [True]
    assert exact == [True]


def test_evaluation_is_written_kept_and_pooled(trained: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(trained, other)
    found = evaluate_runs([trained, other], tmp_path / "both", device="cpu")
    assert list(found) == ["run", "other"]
    first = found["run"].tables["methods"]
    assert set(first["method"]) == {"coin", "layer_cam", "intensity", "intensity-dark"}
    pd.testing.assert_frame_equal(
        first.drop(columns="seconds"), found["other"].tables["methods"].drop(columns="seconds")
    )
    runs = pd.read_csv(tmp_path / "both" / "runs.csv")
    assert (runs["n_runs"].isin([0, 2])).all()
    assert runs["sd"].dropna().max() == pytest.approx(0, abs=1e-12)
    page = (tmp_path / "both" / "report.html").read_text()
    assert "counterfactual" in page
    again = evaluate_runs([trained], tmp_path / "both" / "run", device="cpu")
    assert again["run"].provenance["created"] == found["run"].provenance["created"]
    shutil.copytree(tmp_path / "both" / "run", other / "evaluation")  # as `train --evaluate` does
    third = evaluate_runs([other], tmp_path / "third", device="cpu")
    assert third["other"].provenance["created"] == found["run"].provenance["created"]
    assert (tmp_path / "third" / "methods.csv").is_file()
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
        (["data.size=[40,40]", *SHORT], TrainingError, "divisible by 16"),
        (["data.intensity.window=[3000,4000]"], DataError, "would be blank"),
        (["data.abnormal.synthetic.min_organ_px=4000"], DataError, "at least 4000 pixels"),
        (["classifier.learning_rate=1e30"], TrainingError, "loss"),
        (["generators.coin.learning_rate=1e30", *SHORT], TrainingError, "learning"),
        (["classifier.card=nowhere"], TrainingError, r"classifier\.card: .*intensity\.model"),
        (["classifier.card=nowhere", "data.intensity.model=nowhere"], ModelError, "nowhere"),
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


def test_a_place_that_is_no_run_is_refused(patients: Path, tmp_path: Path) -> None:
    file, folder = tmp_path / "x.csv", tmp_path / "results"
    file.write_text("a")
    folder.mkdir()
    (folder / "config.yaml").write_text("mine: 1")
    for out, said in ((file, "is a file"), (file / "run", "is a file"), (folder, "no run")):
        for how in ("--resume", "--fresh"):
            words = ("--config", "quick", "--data", patients, "--out", out, how)
            code, told = run_cli("counterfactual", "train", *words)
            assert code != 0
            assert said in told.replace("\n", " ")
            assert "Traceback" not in told
    assert set(files_of(tmp_path).values()) == {b"a", b"mine: 1"}


def test_set_of_evaluate_has_its_own_words() -> None:
    _, told = run_cli("counterfactual", "evaluate", "--help")
    assert "evaluation.max_slices" in told
    assert "evaluation.methods=[rise:n=6000" in told.replace("\n", " ")
    assert "generators.coin.steps" not in told
