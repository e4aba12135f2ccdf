from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.classifier_cards import RGB, write_card

from voxplain.records import Explanation
from voxplain.space import read_image

Run = Callable[..., Any]
SIZE = [18, 26]
FROM_8_BITS = [{"scale": {"from": [0, 255]}}]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A grey and a colour picture, a label picture and three classifiers."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 255, (21, 33, 3), np.uint8)
    Image.fromarray(pixels[..., 0]).save(tmp_path / "patient_7.png")
    Image.fromarray(pixels).save(tmp_path / "colour.png")
    lungs = np.zeros((21, 33), np.uint8)
    lungs[4:15, 3:12], lungs[5:17, 18:30] = 1, 2
    Image.fromarray(lungs).save(tmp_path / "lungs.png")
    (tmp_path / "labels.json").write_text(json.dumps({"1": "right lung", "2": "left lung"}))
    write_card(tmp_path / "soft", "softmax", size=SIZE, intensity=FROM_8_BITS)
    write_card(tmp_path / "multi", "multi_label", size=SIZE, channels=RGB, intensity=FROM_8_BITS)
    write_card(tmp_path / "grey3", "one_logit", rank=2, repeat=3, intensity=FROM_8_BITS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def explain(*arguments: str) -> tuple[str, ...]:
    return ("explain", "--method", "gradient", *arguments)


def test_a_classifier_from_the_command_line(folder: Path, voxplain: Run) -> None:
    done = voxplain(*explain("--model", "soft", "--image", "patient_7.png"))
    assert done.exit_code == 0, done.stderr
    assert "the model says: " in done.stdout
    found = Explanation.load(folder / "voxplain-patient_7", read_image(folder / "patient_7.png"))
    for answer in found.classes:
        assert f"{answer.name} {100 * answer.probability:.1f}%" in done.stdout  # type: ignore[operator]
    said = done.stdout.partition("the model says: ")[2].splitlines()[0]
    likeliest = max(found.classes, key=lambda answer: answer.logit)
    assert said.startswith(likeliest.name)
    assert "regions with the largest" not in done.stdout
    assert "patient_7, gradient" in done.stdout
    assert {t.name for t in found.targets} == {"normal", "pneumonia", "effusion"}
    assert found["normal"].values.shape == (1, 21, 33)
    report = (folder / "voxplain-patient_7" / "report.html").read_text()
    for words in ("What the model says", "summed over\nthe whole image", "pixels", "with the map"):
        assert words in report, words
    for words in ("What each target drew on", "strongest region", "windows that reach it"):
        assert words not in report, words


def test_regions_scores_and_a_difference(folder: Path, voxplain: Run) -> None:
    done = voxplain(
        *explain("--model", "soft", "--image", "patient_7.png", "--regions", "lungs.png"),
        *("--score", "log_odds", "--target", "class:pneumonia minus class:normal"),
        *("--target", "class:effusion", "--out", "lungs"),
    )
    assert done.exit_code == 0, done.stderr
    assert "regions with the largest" in done.stdout
    table = pd.read_csv(folder / "lungs" / "regions.csv")
    assert set(table["region"]) == {"background", "right lung", "left lung"}
    names = ["pneumonia[log_odds] minus normal[log_odds]", "effusion[log_odds]"]
    assert table["target"].unique().tolist() == names
    report = (folder / "lungs" / "report.html").read_text()
    assert "log odds of pneumonia minus log odds of normal" in report
    assert "What each target drew on" in report
    assert 'class="line solid"' not in report


def test_a_colour_picture_and_several_labels(folder: Path, voxplain: Run) -> None:
    done = voxplain(*explain("--model", "multi", "--image", "colour.png", "--out", "colour"))
    assert done.exit_code == 0, done.stderr
    found = Explanation.load(folder / "colour")
    assert found["nodule"].channels == tuple(RGB)
    assert "Drawn over the picture in grey" in (folder / "colour" / "report.html").read_text()


def test_a_grey_picture_for_three_channels(folder: Path, voxplain: Run) -> None:
    done = voxplain(*explain("--model", "grey3", "--image", "patient_7.png", "--out", "grey"))
    assert done.exit_code == 0, done.stderr
    found = Explanation.load(folder / "grey")
    assert found["abnormal"].channels == ("cxr",)
    assert found.table.frame["channel"].unique().tolist() == ["cxr"]
    assert "repeat" in str(found.provenance.parameters["preprocessing"])


def test_the_price_first(folder: Path, voxplain: Run) -> None:
    done = voxplain(*explain("--model", "soft", "--image", "patient_7.png", "--dry-run"))
    assert done.exit_code == 0, done.stderr
    assert "windows   1\npasses    2 forward, 3 backward" in done.stdout
    assert not (folder / "voxplain-patient_7").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--model", "soft", "--image", "colour.png"), "needs one grey channel (cxr)"),
        (("--model", "multi", "--image", "patient_7.png"), "repeat: 3"),
        (
            ("--model", "soft", "--image", "patient_7.png", "--target", "class:pneumonja"),
            "did you mean 'pneumonia'",
        ),
        (
            ("--model", "soft", "--image", "patient_7.png", "--target", "class:normal@voxel:3,4"),
            "its targets are class:NAME alone",
        ),
        (("--model", "soft", "--image", "patient_7.png", "--reduce", "mean"), "leave the reduc"),
    ],
)
def test_what_does_not_fit_is_said(
    arguments: tuple[str, ...], words: str, folder: Path, voxplain: Run
) -> None:
    done = voxplain(*explain(*arguments))
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (folder / "voxplain-patient_7").exists()


def test_an_explanation_from_before_classes_were_kept_loads(folder: Path, voxplain: Run) -> None:
    voxplain(*explain("--model", "soft", "--image", "patient_7.png", "--no-report"))
    index = folder / "voxplain-patient_7" / "provenance.json"
    known = json.loads(index.read_text())
    assert [score["name"] for score in known.pop("classes")] == ["normal", "pneumonia", "effusion"]
    index.write_text(json.dumps(known))
    assert Explanation.load(index.parent).classes == ()
    shutil.rmtree(index.parent)
