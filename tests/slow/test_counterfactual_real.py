"""Anomalies in the kidneys of a real CT, through the command of the how-to; one patient only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from voxplain.cli.app import app
from voxplain.counterfactual.run import open_run
from voxplain.records.counterfactual_evaluation import read_evaluation
from voxplain.space import read_image

CT = Path(__file__).resolve().parents[3] / "shared" / "data" / "ct_thorax_abdomen"


@pytest.mark.slow
@pytest.mark.real
@pytest.mark.timeout(900)
def test_real_slices_are_repaired_where_the_anomaly_is(tmp_path: Path) -> None:
    if not CT.is_dir():
        pytest.skip(f"{CT} is not there")
    manifest = tmp_path / "manifest.csv"
    manifest.write_text(
        f"case,image,label,patient\nct,{CT / 'ct.nii.gz'},{CT / 'segmentation.nii.gz'},one\n"
    )
    (tmp_path / "labels.json").write_text((CT / "labels.json").read_text())
    changes = [
        "data.split.by=slices", "data.split.validation=0.2", "data.split.test=0.2",
        "data.size=[96, 96]", "data.intensity.window=[-160, 240]",
        "data.abnormal.synthetic.amplitude_test=[0.7, 0.9]",
        "generators={coin: {kind: coin, steps: 400}}", "evaluation.methods=[layer_cam]",
    ]  # fmt: skip
    words = ["counterfactual", "train", "--config", "synthetic", "--data", str(manifest)]
    words += ["--out", str(tmp_path / "run"), "--evaluate", "--quiet", "--device", "cpu"]
    result = CliRunner().invoke(app, [*words, *(p for c in changes for p in ("--set", c))])
    assert result.exit_code == 0, result.output
    methods = read_evaluation(tmp_path / "run" / "evaluation").tables["methods"]
    overlap = methods.set_index("method")["iou_tuned"]
    assert overlap["coin"] > 0.3
    assert overlap["coin"] > overlap["layer_cam"]
    run = open_run(tmp_path / "run")
    assert "too good" in " ".join(run.notes)
    assert not set(run.slices("train").table["index"]) & set(run.slices("test").table["index"])
    words = ["counterfactual", "apply", "--run", str(tmp_path / "run"), "--quiet"]
    words += ["--image", str(CT / "ct.nii.gz"), "--out", str(tmp_path / "repaired")]
    assert CliRunner().invoke(app, words).exit_code == 0
    (file,) = (tmp_path / "repaired").rglob("*_difference.nii.gz")
    before, difference = read_image(CT / "ct.nii.gz"), read_image(file)
    assert difference.grid.matches(before.grid)
    # a CT without anomalies is left nearly alone, and yet was run through the network
    assert 0 < np.abs(difference.data).mean() < 20
