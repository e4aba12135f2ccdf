"""The main verb: what it writes, where, and what it says."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import SimpleITK
from PIL import Image

from voxplain.attribution import Difference, SmoothGrad, explain
from voxplain.attribution.targets import ClassTarget
from voxplain.models import load_model
from voxplain.records import Explanation
from voxplain.space import read_image, read_labels, write_nifti
from voxplain.testing import phantoms

TABLES = {"regions.csv", "regions.parquet", "provenance.json"}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_all_classes_with_report_into_the_default_folder(case, voxplain):
    done = voxplain(*case.base, "--set", "n=2")
    assert done.exit_code == 0, done.output
    out = Path("voxplain-patient_7")
    maps = {
        f"attribution_{name}.{suffix}"
        for name in ("background", "liver", "spleen")
        for suffix in ("nii.gz", "json")
    }
    assert names(out) == TABLES | maps | {"prediction.nii.gz", "report.html"}
    shares = pd.read_parquet(out / "regions.parquet").groupby("target")["share"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-6)
    assert len(shares) == 3
    assert done.stderr == ""
    for word in ("liver", "spleen", "%", "passes forward", str(out), "report.html"):
        assert word in done.stdout


def test_numbers_are_those_of_the_python_interface(case, voxplain):
    arguments = (
        "--target", "class:liver minus class:spleen", "--target", "voxel:1,2,3",
        "--score", "margin", "--reduce", "mean", "--set", "n=4", "--set", "antithetic=true",
        "--seed", "5", "--precision", "float64", "--batch-size", "3", "--no-report",
    )  # fmt: skip
    assert voxplain(*case.base, *arguments, "--out", "out").exit_code == 0
    saved = Explanation.load("out")
    model = load_model(case.model)
    words = {"score": "margin", "reduction": "mean"}
    minus = Difference(ClassTarget("liver", **words), ClassTarget("spleen", **words))
    expected = explain(
        model, read_image(case.image), minus, SmoothGrad(n=4, antithetic=True), seed=5
    )
    assert saved.targets[0].name == minus.name
    assert saved.targets[0].score == pytest.approx(expected.targets[0].score)
    assert saved.provenance.seed == 5
    assert saved.provenance.parameters["precision"] == "float64"
    assert saved.provenance.parameters["batch_size"] == 3
    np.testing.assert_allclose(
        saved[minus.name].values, expected[minus.name].values, rtol=1e-4, atol=1e-6
    )


def test_written_files_lie_where_the_image_lies_in_another_reader(case, voxplain):
    assert voxplain(*case.quick("--target", "class:liver", "--out", "out")).exit_code == 0
    image = SimpleITK.ReadImage(str(case.image))
    for name in ("prediction.nii.gz", "attribution_liver.nii.gz"):
        written = SimpleITK.ReadImage(str(Path("out", name)))
        assert written.GetSize() == image.GetSize()
        np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-5)
        np.testing.assert_allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-6)
        np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "is_saved"),
    [
        (("--target", "all"), True),
        (("--target", "all", "--no-save-maps"), False),
        (("--target", "all", "--target", "voxel:0,0,0", "--target", "voxel:4,6,10"), False),
        (
            ("--target", "all", "--target", "voxel:0,0,0", "--target", "voxel:4,6,10",
             "--save-maps"),
            True,
        ),
    ],
)  # fmt: skip
def test_maps_are_written_if_they_are_few_or_asked_for(case, voxplain, arguments, is_saved):
    assert voxplain(*case.quick(*arguments, "--out", "out")).exit_code == 0
    n_maps = len([name for name in names(Path("out")) if name.endswith(".nii.gz")]) - 1
    assert n_maps == (len(Explanation.load("out").targets) if is_saved else 0)


def test_own_regions_with_their_names(case, voxplain):
    labels = phantoms.labels(phantoms.oblique_grid(), 2)
    write_nifti("organs.nii.gz", labels.layers, labels.grid)
    Path("labels.json").write_text(json.dumps({"1": "kidney", "2": "bladder"}))
    assert voxplain(*case.quick("--regions", "organs.nii.gz", "--out", "out")).exit_code == 0
    frame = pd.read_csv("out/regions.csv")
    assert list(frame["region"].unique()) == ["background", "kidney", "bladder"]
    saved = Explanation.load("out")
    np.testing.assert_array_equal(saved.regions.layers, labels.layers)


def test_a_mask_target(case, voxplain):
    labels = phantoms.labels(phantoms.oblique_grid(), 1)
    write_nifti("lesion.nii.gz", labels.layers, labels.grid)
    done = voxplain(*case.quick("--target", "class:liver@mask:lesion.nii.gz", "--out", "out"))
    assert done.exit_code == 0, done.output
    assert "attribution_liver_lesion.nii.gz" in names(Path("out"))


def test_channels_are_files_in_order(case, voxplain, write_model):
    write_model(case.folder / "two", n_channels=2)
    image = read_image(case.image)
    write_nifti("second.nii.gz", -image.data, image.grid)
    done = voxplain(
        "explain", "--model", "two", "--image", str(case.image), "--image", "second.nii.gz",
        "--method", "gradient", "--no-report", "--case", "Müller / 7",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    frame = pd.read_parquet("voxplain-Muller_7/regions.parquet")
    assert set(frame["channel"]) == {"c0", "c1"}
    assert set(frame["case"]) == {"Müller / 7"}


def test_a_picture_and_a_classifier(case, voxplain, write_model):
    folder = write_model(
        case.folder / "picture",
        kind="classification",
        network={
            "target": "monai.networks.nets.DenseNet",
            "arguments": {
                "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "init_features": 4,
                "growth_rate": 2, "block_config": [1, 1], "bn_size": 1,
            },
        },
        input={"channels": ["xray"], "size": [16, 20]},
        window=None,
        classes=["normal", "ill"],
    )  # fmt: skip
    import torch
    from monai.networks.nets import DenseNet
    from safetensors.torch import save_file

    torch.manual_seed(0)
    network = DenseNet(2, 1, 2, init_features=4, growth_rate=2, block_config=(1, 1), bn_size=1)
    save_file(network.state_dict(), folder / "weights.safetensors")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (16, 20), np.uint8)).save("chest.png")
    done = voxplain(
        "explain", "--model", str(folder), "--image", "chest.png", "--method", "gradient",
        "--no-report",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "prediction.nii.gz" not in names(Path("voxplain-chest"))
    assert "attribution_ill.nii.gz" in names(Path("voxplain-chest"))


def test_a_second_run_replaces_its_own_files_and_keeps_others(case, voxplain):
    assert voxplain(*case.quick("--out", "out", "--target", "class:liver")).exit_code == 0
    before = json.loads(Path("out/provenance.json").read_text())
    Path("out/notes.txt").write_text("mine")
    again = voxplain(*case.quick("--out", "out", "--target", "class:spleen"))
    assert again.exit_code == 0, again.output
    after = json.loads(Path("out/provenance.json").read_text())
    assert before["targets"] != after["targets"]
    assert Path("out/notes.txt").read_text() == "mine"
    assert Explanation.load("out").targets[0].name == "spleen"
    assert "notes.txt" not in again.stdout


def test_quiet_prints_nothing(case, voxplain):
    done = voxplain(*case.quick("--quiet"))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_dry_run_tells_the_passes_of_the_real_run_and_writes_nothing(case, voxplain):
    before = case.files()
    told = voxplain(*case.base, "--set", "n=3", "--dry-run")
    assert told.exit_code == 0, told.output
    assert case.files() == before
    assert "upper bound" not in told.stdout
    assert voxplain(*case.base, "--set", "n=3", "--no-report").exit_code == 0
    cost = Explanation.load("voxplain-patient_7").provenance.cost
    assert f"{cost.n_forward} forward, {cost.n_backward} backward" in told.stdout


def test_dry_run_says_where_it_is_an_upper_bound(case, voxplain, monkeypatch):
    monkeypatch.setattr(sys.modules["voxplain.attribution.estimate"], "_EXACT_SECONDS", 0.0)
    told = voxplain(*case.base, "--dry-run")
    assert "at most" in told.stdout
    assert "upper bound" in told.stdout


def test_a_full_memory_is_told_in_one_line(case, voxplain, monkeypatch):
    import torch

    from voxplain.inference.pipeline import Pipeline

    forward = Pipeline.forward

    def small(self: Pipeline, batch: torch.Tensor, view: int) -> torch.Tensor:
        if len(batch) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return forward(self, batch, view)

    monkeypatch.setattr(Pipeline, "forward", small)
    done = voxplain(*case.quick("--batch-size", "4", "--quiet"))
    assert done.exit_code == 0, done.output
    assert done.stderr == (
        "voxplain: warning: out of memory with 4 windows in a pass; going on with 2\n"
    )


def test_absent_classes_are_told_together(case, voxplain):
    image = read_image(case.image)
    write_nifti("flat.nii.gz", np.zeros_like(image.data), image.grid)
    done = voxplain(
        "explain", "--model", str(case.model), "--image", "flat.nii.gz", "--method", "gradient",
        "--no-report",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("VX103")]
    present = set(np.unique(read_labels("voxplain-flat/prediction.nii.gz").layers))
    names_by_label = dict(enumerate(["background", "liver", "spleen"]))
    for label, name in names_by_label.items():
        assert (name in line) == (label not in present)


def test_many_targets_are_counted(case, voxplain):
    voxels = [text for i in range(11) for text in ("--target", f"voxel:0,0,{i}")]
    done = voxplain(*case.quick(*voxels))
    assert done.exit_code == 0, done.output
    assert "and 1 more targets in regions.csv" in done.stdout
    assert "voxel:0,0,9" in done.stdout
    assert "voxel:0,0,10" not in done.stdout
