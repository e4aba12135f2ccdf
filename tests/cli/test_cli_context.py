"""``voxplain context``: its tables, its folder, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from voxplain.cli import context as verb
from voxplain.cli.faults import PlainFaults
from voxplain.lesions.context import DISTANCES_MM
from voxplain.records.archive import file_sha256
from voxplain.records.lesion_tables import CONTEXT
from voxplain.space import write_nifti
from voxplain.study.context_need import CURVES, MEDIANS, NEED, context_need
from voxplain.testing import phantoms

SHAPE = (14, 12, 10)
FILES = [
    f"{name}.{kind}"
    for name in ("context", "context_curves", "context_medians", "context_need")
    for kind in ("csv", "parquet")
]


@pytest.fixture
def run():
    app = typer.Typer(cls=PlainFaults)
    app.command(epilog=verb.EPILOG)(verb.context)
    app.command("other")(lambda: None)
    return lambda *words: CliRunner().invoke(app, ["context", *map(str, words)])


def spot_model(write_model, folder: Path, name: str = "spots", bias: float = -6) -> Path:
    """A card whose network finds voxels brighter, with their neighbours, than a threshold."""
    write_model(
        folder, name=name, classes=["background", "lesion"],
        network={"target": "torch.nn.Conv3d", "arguments": {
            "in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1}},
        window={"size": [6, 7, 8], "overlap": 0.5},
    )  # fmt: skip
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    with torch.no_grad():
        network.weight.zero_()
        network.bias.zero_()
        network.weight[1, 0] = 0.2
        network.weight[1, 0, 1, 1, 1] = 4
        network.bias[1] = bias
    save_file(network.state_dict(), folder / "weights.safetensors")
    return folder


@pytest.fixture
def brain(tmp_path, monkeypatch, write_model):
    """A model, an image with lesions of 1, 4 and 27 voxels, and the truth as 0 and 255."""
    spot_model(write_model, tmp_path / "model")
    rng = np.random.default_rng(0)
    data = rng.normal(0.3, 0.05, (1, *SHAPE)).astype(np.float32)
    data[0, 2, 2, 2] = 2
    data[0, 10:12, 2:4, 7] = 2
    data[0, 4:7, 7:10, 3:6] = 2
    truth = np.zeros((1, *SHAPE), np.uint8)
    truth[0, 4:7, 7:10, 3:6] = 255
    truth[0, 12, 9:11, 8] = 255  # not in the image: missed
    grid = phantoms.oblique_grid(SHAPE, (0.9, 1.1, 1.4), 3)
    write_nifti(tmp_path / "flair.nii.gz", data, grid)
    write_nifti(tmp_path / "truth.nii.gz", truth, grid)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = ("--model", "model", "--image", "flair.nii.gz")


def test_tables_and_provenance(run, brain):
    done = run(*BASE, "--truth", "truth.nii.gz", "--patient", "p7", "--case", "scan")
    assert done.exit_code == 0, done.output
    place = brain / "voxplain-scan-context"
    files = [*FILES, "provenance.json", "report.html"]
    assert sorted(p.name for p in place.iterdir()) == sorted(files)
    assert "median mm" in done.stdout
    frame = pd.read_parquet(place / "context.parquet")
    assert tuple(frame.columns) == CONTEXT
    for name, columns in {"need": NEED, "medians": MEDIANS, "curves": CURVES}.items():
        assert tuple(pd.read_csv(place / f"context_{name}.csv").columns) == columns
    assert set(frame["case"]) == {"scan"}
    assert set(frame["patient"]) == {"p7"}
    assert set(frame["model"]) == {"spots"}
    types = frame.groupby("instance")["type"].first().to_dict()
    assert types == {"P1": "TP", "P2": "FP", "P3": "FP", "T2": "FN"}
    assert frame[frame["instance"] == "P1"]["distance_mm"].tolist() == [*DISTANCES_MM, np.inf]
    again = pd.read_csv(place / "context.csv")
    pd.testing.assert_frame_equal(context_need(again), pd.read_csv(place / "context_need.csv"))
    found = json.loads((place / "provenance.json").read_text())
    assert found["format"] == "voxplain context"
    assert found["files"] == {name: file_sha256(place / name) for name in FILES}
    (one,) = found["provenance"]
    assert one["model"] == "spots"
    assert f"{one['cost']['n_forward']} passes forward" in done.stdout
    assert one["parameters"]["fill"] == "Constant(value=0.0)"
    assert one["parameters"]["modes"] == ["keep"]


def test_two_models_modes_and_a_selection(run, brain, write_model):
    spot_model(write_model, brain / "second")
    done = run(
        *BASE, "--model", "second", "--mode", "both", "--fill", "mean", "--distances", "0,1.5,3",
        "--min-voxels", 2, "--max-voxels", 20, "--out", "here", "--quiet",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert done.stdout == ""
    frame = pd.read_parquet(brain / "here" / "context.parquet")
    assert set(frame["model"]) == {"spots (model)", "spots (second)"}
    assert set(frame["instance"]) == {"P2"}
    assert set(frame["fill"]) == {"mean"}
    assert frame.groupby("mode").size().to_dict() == {"keep": 8, "remove": 6}
    one, other = (part.drop(columns="model") for _, part in frame.groupby("model"))
    pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True))
    found = json.loads((brain / "here" / "provenance.json").read_text())
    assert [p["model"] for p in found["provenance"]] == ["spots (model)", "spots (second)"]


def test_steps_and_a_second_run_in_the_same_folder(run, brain):
    (brain / "here").mkdir()
    (brain / "here" / "notes.txt").write_text("mine")
    first = run(*BASE, "--steps", 3, "--out", "here")
    assert first.exit_code == 0, first.output
    frame = pd.read_parquet(brain / "here" / "context.parquet")
    own = frame[frame["instance"] == "P1"]
    assert own["n_steps"].dropna().tolist() == [1, 2, 3]
    assert own["distance_mm"].tolist() == pytest.approx([0.9, 1.8, 2.7, np.inf], rel=1e-6)
    second = run(*BASE, "--distances", "2", "--out", "here", "--seed", 5)
    assert second.exit_code == 0, second.output
    frame = pd.read_parquet(brain / "here" / "context.parquet")
    assert set(frame["distance_mm"]) == {2, np.inf}
    assert (brain / "here" / "notes.txt").read_text() == "mine"


def test_a_model_that_finds_none_beside_one_that_does(run, brain, write_model):
    spot_model(write_model, brain / "blind", "blind", bias=-99)
    done = run(*BASE, "--model", "blind", "--distances", "0")
    assert done.exit_code == 0, done.output
    assert "Warning" not in done.stderr
    frame = pd.read_csv(brain / "voxplain-flair-context" / "context.csv")
    assert set(frame["model"]) == {"spots"}


def test_no_lesion(run, brain):
    done = run(*BASE, "--threshold", 0.999999)
    assert done.exit_code == 0, done.output
    assert "no lesion" in done.stdout
    place = brain / "voxplain-flair-context"
    assert tuple(pd.read_csv(place / "context.csv").columns) == CONTEXT
    assert len(pd.read_csv(place / "context.csv")) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--steps", 3, "--distances", "1,2"), "give one"),
        (("--distances", "1,two"), "--distances takes millimetres"),
        (("--distances", "1,-2"), "at least 0 mm"),
        (("--fill", "grey"), "a baseline is mean"),
        (("--class", "lesoin"), "lesion"),
        (("--threshold", 1.5), "between 0 and 1"),
        (("--min-voxels", 9, "--max-voxels", 3), "--max-voxels is at least --min-voxels"),
        (("--share", 0), "--share is above 0"),
        (("--model", "model"), "given twice"),
        (("--model", "nowhere"), "nowhere"),
        (("--image", "truth.nii.gz"), "channel"),
        (("--model-set", "folds"), "KEY=VALUE"),
    ],
)
def test_refused_in_one_line_and_nothing_written(run, brain, words, message):
    before = sorted(brain.rglob("*"))
    done = run(*BASE, *words)
    assert done.exit_code == 2
    assert message in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert sorted(brain.rglob("*")) == before


def test_help_teaches(run):
    done = run("--help")
    assert done.exit_code == 0
    for words in ("--distances", "--fill", "34 dilations", "millimetres"):
        assert words in done.stdout
