"""``voxplain response``: what it writes, and what it refuses."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import typer
from safetensors.torch import save_file
from typer.testing import CliRunner

from voxplain.cli import response as verb
from voxplain.cli.faults import PlainFaults
from voxplain.lesions.insert import LesionShape
from voxplain.lesions.intensity import LesionIntensity
from voxplain.records.lesion_tables import RESPONSE
from voxplain.space import read_image, write_nifti
from voxplain.study.response_curve import CURVE, HALF
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((26, 24, 20), (1.1, 1.0, 1.3), seed=3)
QUICK = ("--diameters", "3,5", "--contrasts", "0.2,1", "--places", "2", "--margin-mm", "1", "-q")


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    app = typer.Typer(cls=PlainFaults)
    app.command(epilog=verb.EPILOG)(verb.response)
    app.command("other")(lambda: None)
    return lambda *words: CliRunner().invoke(app, ["response", *map(str, words)])


@pytest.fixture
def base(write_model, tmp_path):
    """A voxel is lesion above 12; tissue is about 10, a lesion of 6 mm 4 brighter."""
    model = write_model(
        tmp_path / "model",
        classes=["background", "lesion"],
        network={
            "target": "torch.nn.Conv3d",
            "arguments": {"in_channels": 1, "out_channels": 2, "kernel_size": 1},
        },
        window={"size": [10, 12, 8], "overlap": 0.5},
    )
    weights = {
        "weight": torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1, 1),
        "bias": torch.tensor([0.0, -24.0]),
    }
    save_file(weights, model / "weights.safetensors")
    lesion = LesionShape.draw(GRID.to_world([8, 8, 6]), 6).voxels(GRID)
    data = 10 + np.random.default_rng(0).normal(0, 0.2, GRID.shape) + 4 * lesion
    data[:3] = data[:, :3] = 0
    write_nifti(tmp_path / "brain.nii.gz", data.astype(np.float32), GRID)
    write_nifti(tmp_path / "lesion.nii.gz", lesion, GRID)
    return ("--model", model, "--image", tmp_path / "brain.nii.gz")


def test_files_and_what_they_hold(run, base, tmp_path):
    done = run(*base, *QUICK, "--save-images", "--patient", "p1", "--no-texture")
    assert done.exit_code == 0, done.output
    assert done.output == ""
    folder = tmp_path / "voxplain-brain-response"
    frame = pd.read_csv(folder / "response.csv")
    assert tuple(frame.columns) == RESPONSE
    assert len(frame) == 2 * 2 * 3
    pd.testing.assert_frame_equal(
        pd.read_parquet(folder / "response.parquet"), frame, check_dtype=False
    )
    assert set(frame["patient"]) == {"p1"}
    # 10 + 4 · contrast against 12
    assert (frame["is_detected"] == (frame["contrast"] == 1)).all()
    assert tuple(pd.read_csv(folder / "curve.csv").columns) == CURVE
    assert tuple(pd.read_csv(folder / "half.csv").columns) == HALF
    look = LesionIntensity.load(folder / "intensity.json")
    assert look.difference[0] == pytest.approx(4, rel=0.05)
    known = json.loads((folder / "provenance.json").read_text())
    assert known["provenance"]["parameters"]["learned_from"] == "predicted"
    assert known["provenance"]["cost"]["n_forward"] > 0
    written = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert written == {*known["files"], "provenance.json"}
    made = read_image(folder / "images" / "place1_5mm_x1.nii.gz")
    mask = read_image(folder / "images" / "place1_5mm_x1_lesion.nii.gz").data[0] > 0
    clean = read_image(tmp_path / "brain.nii.gz")
    assert (made.data - clean.data)[0][mask].mean() > 2
    # a second run without images leaves none of the first
    again = run(*base, *QUICK)
    assert again.exit_code == 0, again.output
    assert not (folder / "images").exists()


def test_a_summary_is_printed(run, base):
    done = run(*base, *QUICK[:-1])
    assert done.exit_code == 0, done.output
    assert "× 0.2" in done.output
    assert "100%" in done.output
    assert "half are detected at contrast 1" in done.output
    assert "voxplain-brain-response" in done.output


def test_truth_and_intensities_of_another_run(run, base, tmp_path):
    truth = ("--truth", tmp_path / "lesion.nii.gz")
    done = run(*base, *QUICK, *truth, "--learn-from", "truth", "--out", "one")
    assert done.exit_code == 0, done.output
    done = run(*base, *QUICK, "--intensity", "one/intensity.json", "--out", "two")
    assert done.exit_code == 0, done.output
    one, two = (LesionIntensity.load(tmp_path / n / "intensity.json") for n in ("one", "two"))
    ratio = np.divide(two.scale, one.scale)
    np.testing.assert_allclose(two.difference, np.multiply(one.difference, ratio))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--threshold", "0.9999999"), "predicts no lesion to learn from"),
        (("--learn-from", "truth"), "give a truth"),
        (("--diameters", "3,60"), "room for one of 60 mm"),
        (("--diameters", "3;5"), "--diameters takes numbers"),
        (("--contrasts", "x"), "--contrasts takes numbers"),
        (("--contrasts", "0"), "not all 0"),
        (("--diameters", "-3"), "above 0 mm"),
        (("--irregularity", "2"), "irregularity is 0"),
        (("--class", "tumor"), "no class 'tumor'"),
        (("--intensity", "none.json"), "cannot be read"),
    ],
)
def test_mistakes_are_said_in_one_line_and_leave_nothing(run, base, tmp_path, words, said):
    done = run(*base, *QUICK, *words)
    assert done.exit_code == 2
    assert said in done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "voxplain-brain-response").exists()


def test_help_teaches(run):
    done = run("--help")
    assert done.exit_code == 0
    for word in ("--intensity", "--diameters", "healthy", "Examples"):
        assert word in done.output
