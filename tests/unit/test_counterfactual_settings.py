"""Settings that YAML misreads, slices written over others, and patients of demonstrations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from voxplain.cli import counterfactual_job
from voxplain.cli.app import app
from voxplain.counterfactual.classifier_loop import ClassifierLoop
from voxplain.counterfactual.config import ClassifierConfig
from voxplain.counterfactual.config_file import absolute, config_text, read_config
from voxplain.counterfactual.draw_seed import seeded
from voxplain.counterfactual.generator import Batch
from voxplain.counterfactual.slices import COLUMNS, Slices, read_slices
from voxplain.demo import kidneys
from voxplain.errors import TrainingError
from voxplain.train.recipe_file import read_recipe


@pytest.mark.parametrize("text", ["off", "'off'", "bf16", "auto"])
def test_precision_is_read_as_it_is_written(text: str, tmp_path: Path) -> None:
    """YAML takes a plain off for false."""
    wanted = text.strip("'")
    config = read_config("quick", [f"amp={text}"])
    assert config.amp == read_recipe("unet", [f"amp={text}"]).amp == wanted
    for file, given in (("own.yaml", f"preset: quick\namp: {text}\n"), ("all.yaml", None)):
        (tmp_path / file).write_text(config_text(config) if given is None else given)
        assert read_config(str(tmp_path / file)).amp == wanted


@pytest.mark.parametrize("text", ["on", "true", "no-such", "0"])
def test_other_words_for_precision_are_refused(text: str) -> None:
    with pytest.raises(TrainingError, match="amp"):
        read_config("quick", [f"amp={text}"])


def test_folders_of_models_become_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    monkeypatch.chdir(tmp_path)
    changes = ["classifier.card=one", "judge.card=two", "data.intensity.model=gone"]
    config = absolute(read_config("quick", changes))
    assert config.classifier.card == str(tmp_path / "one")
    assert config.judge is not None
    assert config.judge.card == str(tmp_path / "two")
    assert config.data.intensity.model == "gone"
    plain = read_config("quick", ["judge=null"])
    assert absolute(plain) == plain


def test_slices_leave_nothing_of_those_before(tmp_path: Path) -> None:
    shape = (2, 4, 5)
    table = pd.DataFrame({"case": "a", "patient": 0, "plane": "axial", "index": [0, 1]})
    images = np.zeros((2, 1, 4, 5), np.float32)
    parts = {name: np.ones(shape, bool) for name in ("truth", "organ", "inside")}
    one = Slices(images, np.zeros(2, np.int8), **parts, table=table[list(COLUMNS)], clean=images)
    one.write(tmp_path / "part")
    assert read_slices(tmp_path / "part").clean is not None
    other = Slices(images, np.zeros(2, np.int8), **parts, table=table[list(COLUMNS)])
    other.write(tmp_path / "part")
    assert read_slices(tmp_path / "part").clean is None


def test_a_seeded_block_draws_as_from_a_seed_and_leaves_no_trace() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(11)
        wanted = torch.randn(4)
    before = torch.get_rng_state()
    with seeded(11, torch.device("cpu")):
        assert torch.equal(torch.randn(4), wanted)
    assert torch.equal(torch.get_rng_state(), before)


def test_training_a_classifier_leaves_the_gpus_generators_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Source:
        def batch(self, stream: str, step: int, n_normal: int, n_abnormal: int) -> Batch:
            images = torch.linspace(-1, 1, 4 * 32 * 32).reshape(4, 1, 32, 32)
            return Batch(images, torch.tensor([0, 0, 1, 1]), torch.ones_like(images))

        mixed = batch

    asked: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", asked.append)
    config = ClassifierConfig(steps=4, batch=4)
    loop = ClassifierLoop(config, Source(), "classifier", 0, "off", torch.device("cpu"))
    loop.step(0)
    assert not asked


@pytest.mark.parametrize(("preset", "numbers"), [("quick", (24, 6)), ("synthetic", (150, 24))])
def test_a_demonstration_with_other_patients_has_its_own_folder(
    preset: str, numbers: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Path] = []

    def write(folder: Path, n_train: int, n_validation: int, n_test: int, seed: int) -> Path:
        assert (n_train, n_test) == numbers
        drawn.append(folder)
        return known(folder, 1, 1, 1, seed=seed)

    known = kidneys.write_kidney_patients
    monkeypatch.setattr(kidneys, "write_kidney_patients", write)
    for name in ("train_job", "evaluate_job"):
        monkeypatch.setattr(counterfactual_job, name, lambda *args, **kwargs: None)
    words = ["counterfactual", "demo", "--config", preset, "--out", str(tmp_path), "--quiet"]
    for _ in range(2):
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, result.output
    assert drawn == [tmp_path / f"data-{numbers[0]}-{numbers[1]}"]  # the second time it is kept
