"""``voxplain instances``: results, bad input, networks of the published work."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from monai.networks.nets import DynUNet, SwinUNETR, UNet
from safetensors.torch import save_file

from voxplain.records.lesion_tables import INSTANCES, SALIENCY, SHELLS, LesionResult
from voxplain.space import read_image, write_nifti
from voxplain.space.grid import Grid
from voxplain.testing.phantoms import oblique_grid

GRID = oblique_grid((12, 14, 16))
FILES = {"instances", "saliency", "shells"}


@pytest.fixture
def brain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_model) -> Path:
    """A two-channel model that finds bright spots, its image, and the truth as 0 and 255."""
    folder = write_model(
        tmp_path / "model", n_channels=2, classes=["background", "lesion"],
        network={"target": "torch.nn.Conv3d", "arguments": {
            "in_channels": 2, "out_channels": 2, "kernel_size": 3, "padding": 1}},
        input={"channels": ["flair", "mprage"]},
        window={"size": [6, 8, 8], "overlap": 0.5, "blend": "gaussian"},
    )  # fmt: skip
    network = torch.nn.Conv3d(2, 2, 3, padding=1)
    with torch.no_grad():
        network.weight.zero_()
        network.weight[1, 0] = 0.05
        network.weight[1, 0, 1, 1, 1] = 1
        network.weight[1, 1, 1, 1, 1] = 0.1
        network.bias.copy_(torch.tensor([0.0, -4.0]))
    save_file(network.state_dict(), folder / "weights.safetensors")
    rng = np.random.default_rng(0)
    data = rng.normal(0, 0.2, (2, *GRID.shape)).astype(np.float32)
    truth = np.zeros((1, *GRID.shape), np.uint8)
    for i, place in enumerate(((3, 4, 4), (8, 9, 11), (0, 12, 3))):  # the third on the border
        spot = tuple(slice(max(0, a - 1), a + 2) for a in place)
        data[(slice(None), *spot)] += 5
        if i != 1:
            truth[(0, *spot)] = 255
    write_nifti(tmp_path / "p7_flair.nii.gz", data[:1], GRID)
    write_nifti(tmp_path / "p7_mprage.nii.gz", data[1:], GRID)
    write_nifti(tmp_path / "truth.nii.gz", truth, GRID)
    write_nifti(tmp_path / "body.nii.gz", np.ones_like(truth), GRID)
    monkeypatch.chdir(tmp_path)
    return tmp_path


BASE = ("instances", "--model", "model", "--image", "p7_flair.nii.gz", "--image",
        "p7_mprage.nii.gz")  # fmt: skip
QUICK = (*BASE, "--method", "gradient", "--no-report")


def test_lesions_typed_explained_and_written(brain, voxplain):
    done = voxplain(
        *BASE, "--truth", "truth.nii.gz", "--controls", "1", "--margin-mm", "2", "--within",
        "body.nii.gz", "--method", "smoothgrad:n=2,noise=0.05", "--method", "gradient_max",
        "--case", "p7", "--patient", "A",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    out = Path("voxplain-p7-instances")
    names = {file.name for file in out.iterdir()}
    tables = {f"{name}.{suffix}" for name in FILES for suffix in ("csv", "parquet")}
    assert names == tables | {"instances.nii.gz", "maps", "provenance.json", "report.html"}
    frame = pd.read_csv(out / "instances.csv")
    assert list(frame.columns) == list(INSTANCES)
    assert sorted(frame["type"]) == ["FP", "TN", "TP", "TP"]
    assert (frame["patient"] == "A").all()
    assert frame.loc[frame["type"] != "TN", "touches_border"].sum() == 1
    saliency = pd.read_csv(out / "saliency.csv")
    assert list(saliency.columns) == list(SALIENCY)
    assert list(saliency["method"].unique()) == ["smoothgrad", "gradient_max"]
    assert len(saliency) == 4 * 2 * 2
    assert list(pd.read_csv(out / "shells.csv").columns) == list(SHELLS)
    loaded = LesionResult.load(out, read_image(["p7_flair.nii.gz", "p7_mprage.nii.gz"]))
    assert len(loaded.maps) == 8
    page = (out / "report.html").read_bytes()
    again = voxplain(
        "report", str(out), "--image", "p7_flair.nii.gz", "--image", "p7_mprage.nii.gz"
    )
    assert again.exit_code == 0, again.output
    assert abs(len((out / "report.html").read_bytes()) - len(page)) < 0.01 * len(page)
    for word in ("2 TP", "1 FP", "1 TN", "flair", "mprage", "passes forward", str(out)):
        assert word in done.stdout
    assert "unfinished" not in names


def test_the_share_of_a_linear_model_is_that_of_its_weights(brain, voxplain):
    done = voxplain(*QUICK, "--out", "out", "--precision", "float64")
    assert done.exit_code == 0, done.output
    shares = pd.read_csv("out/saliency.csv").groupby("channel")["share"].mean()
    assert shares["flair"] == pytest.approx((26 * 0.05 + 1) / (26 * 0.05 + 1.1), abs=0.05)


def test_other_results_of_the_folder_go_and_notes_stay(brain, voxplain):
    assert voxplain(*QUICK, "--out", "out").exit_code == 0
    Path("out/notes.txt").write_text("mine")
    assert Path("out/maps/P1_gradient.nii.gz").is_file()
    assert voxplain(*QUICK, "--out", "out", "--maps", "none").exit_code == 0
    assert not Path("out/maps").exists()
    assert Path("out/notes.txt").read_text() == "mine"


def test_a_killed_run_goes_on_or_is_thrown_away(brain, voxplain, monkeypatch):
    from voxplain.lesions import explain

    calls = []

    def dies(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return original(*arguments)

    original = explain.explained
    words = (*BASE, "--no-report", "--method", "gradient", "--method", "gradient_max")
    whole = voxplain(*words, "--out", "whole")
    assert whole.exit_code == 0, whole.output
    monkeypatch.setattr(explain, "explained", dies)
    assert voxplain(*words, "--out", "out").exit_code == 2
    assert {file.name for file in Path("out").iterdir()} == {"unfinished"}
    assert len(list(Path("out/unfinished").glob("*.part.json"))) > 0
    monkeypatch.setattr(explain, "explained", original)
    other = voxplain(*words, "--out", "out", "--seed", "4")
    assert other.exit_code == 2
    assert "another seed" in other.output
    assert "--restart" in other.output
    assert voxplain(*words, "--out", "out").exit_code == 0
    for name in FILES:
        pd.testing.assert_frame_equal(
            pd.read_parquet(f"out/{name}.parquet"), pd.read_parquet(f"whole/{name}.parquet")
        )
    assert not Path("out/unfinished").exists()
    monkeypatch.setattr(explain, "explained", dies)
    calls.clear()
    assert voxplain(*words, "--out", "new").exit_code == 2
    monkeypatch.setattr(explain, "explained", original)
    assert voxplain(*words, "--out", "new", "--seed", "4", "--restart").exit_code == 0


def test_a_method_may_come_with_several_settings(brain, voxplain):
    words = (*BASE, "--no-report", "--method", "smoothgrad:n=1", "--method", "smoothgrad:n=2")
    assert voxplain(*words, "--out", "out").exit_code == 0
    labels = list(pd.read_csv("out/saliency.csv")["method"].unique())
    assert labels == ["smoothgrad:n=1", "smoothgrad:n=2"]
    assert len(LesionResult.load("out").maps) == 6
    twice = voxplain(*words, "--method", "smoothgrad:n=2", "--out", "twice")
    assert twice.exit_code == 2
    assert "smoothgrad:n=2 is given twice" in twice.output


def test_whole_maps_lie_beside_the_crops(brain, voxplain):
    assert voxplain(*QUICK, "--maps", "full", "--out", "out").exit_code == 0
    assert read_image("out/full/P1_gradient.nii.gz").grid.matches(GRID)
    known = json.loads(Path("out/provenance.json").read_text())
    assert "full/P1_gradient.nii.gz" in known["files"]
    assert voxplain(*QUICK, "--out", "out").exit_code == 0
    assert not Path("out/full").exists()


def test_names_of_labels_beside_the_truth_do_not_matter(brain, voxplain):
    Path("labels.json").write_text('{"lesion": 1}')
    done = voxplain(*QUICK, "--truth", "truth.nii.gz", "--out", "out")
    assert done.exit_code == 0, done.output


def test_an_output_that_is_a_file_is_said_plainly(brain, voxplain):
    Path("out").write_text("mine")
    done = voxplain(*QUICK, "--out", "out")
    assert done.exit_code == 2
    assert "voxplain: cannot write" in done.output
    assert Path("out").read_text() == "mine"


def test_no_lesion_is_said(brain, voxplain):
    done = voxplain(*BASE, "--threshold", "0.999999", "--min-voxels", "500")
    assert done.exit_code == 0, done.output
    assert "no lesion was found" in done.stdout
    assert "VX108" in done.stdout
    assert len(pd.read_csv("voxplain-p7_flair-instances/instances.csv")) == 0


def test_five_hundred_lesions(brain, voxplain):
    grid = Grid((40, 40, 40), np.diag([1.0, 1.0, 2.0, 1.0]))
    data = np.zeros((1, *grid.shape), np.float32)
    data[0, 1::5, 1::5, 1::5] = 20
    for name in ("p7_flair", "p7_mprage"):
        write_nifti(Path(f"{name}.nii.gz"), data, grid)
    done = voxplain(*BASE, "--method", "gradient", "--out", "out", "--min-voxels", "1")
    assert done.exit_code == 0, done.output
    assert len(pd.read_csv("out/instances.csv")) == 512
    assert len(list(Path("out/maps").glob("*.nii.gz"))) == 40
    assert "and 497 more" in done.stdout


MISTAKES = {
    "no class": (("--class", "tumour"), ["no class 'tumour'", "lesion"]),
    "threshold": (("--threshold", "3"), ["between 0 and 1", "3.0"]),
    "neighbours": (("--neighbours", "7"), ["7", "18"]),
    "shells": (("--shell", "0,5,3"), ["rising"]),
    "shell text": (("--shell", "wide"), ["--shell takes millimetres", "'wide'"]),
    "method": (("--method", "gradcam"), ["no method 'gradcam'", "grad_cam"]),
    "setting": (("--method", "smoothgrad:copies=4"), ["copies"]),
    "no truth file": (("--truth", "nothing.nii.gz"), ["no such file", "nothing.nii.gz"]),
    "controls": (("--controls", "9", "--margin-mm", "300"), ["control"]),
}


@pytest.mark.parametrize("name", list(MISTAKES))
def test_a_mistake_is_one_line_and_leaves_nothing(brain, voxplain, name):
    arguments, words = MISTAKES[name]
    before = sorted(p.name for p in brain.iterdir())
    done = voxplain(*QUICK, *arguments, "--out", "out")
    assert done.exit_code == 2, done.output
    for word in words:
        assert word in " ".join(done.output.split())
    assert sorted(p.name for p in brain.iterdir()) == before


def test_files_in_another_order_are_refused(brain, voxplain):
    done = voxplain("instances", "--model", "model", "--image", "p7_mprage.nii.gz", "--image",
                    "p7_flair.nii.gz")  # fmt: skip
    assert done.exit_code == 2
    assert "in the order flair, mprage" in " ".join(done.output.split())


def test_channels_on_different_grids_are_refused(brain, voxplain):
    image = read_image("p7_mprage.nii.gz")
    write_nifti(
        Path("p7_mprage.nii.gz"), image.data[:, 1:], image.grid.crop((1, 0, 0), (11, 14, 16))
    )
    done = voxplain(*QUICK)
    assert done.exit_code == 2
    assert "different grids" in " ".join(done.output.split())


@pytest.mark.parametrize("form", ["ones", "float", "float255", "fraction", "far away"])
def test_forms_of_truth(brain, voxplain, form):
    truth = read_image("truth.nii.gz")
    values, grid = truth.data > 0, truth.grid
    dtype = np.float32 if form.startswith(("float", "fraction")) else np.uint8
    factor = {"float255": 255, "fraction": 0.5}.get(form, 1)
    if form == "far away":
        grid = grid.crop((500, 500, 500), grid.shape)
    write_nifti(Path("other.nii.gz"), (values * factor).astype(dtype), grid, dtype)
    assert voxplain(*QUICK, "--truth", "truth.nii.gz", "--out", "first").exit_code == 0
    done = voxplain(*QUICK, "--truth", "other.nii.gz", "--out", "out")
    if form in ("fraction", "far away"):
        assert done.exit_code == 2
        assert ("fractions" if form == "fraction" else "overlap") in done.output
        return
    assert done.exit_code == 0, done.output
    wanted = pd.read_csv("first/instances.csv")
    pd.testing.assert_frame_equal(pd.read_csv("out/instances.csv"), wanted)


NETWORKS = {
    "UNet": (UNet, {"spatial_dims": 3, "in_channels": 2, "out_channels": 2,
                    "channels": [4, 8, 8], "strides": [2, 2], "norm": "batch"}),
    "DynUNet": (DynUNet, {"spatial_dims": 3, "in_channels": 2, "out_channels": 2,
                          "kernel_size": [3, 3, 3], "strides": [1, 2, 2],
                          "upsample_kernel_size": [2, 2], "filters": [4, 8, 8],
                          "norm_name": "instance", "res_block": True, "dropout": 0.1}),
    "SwinUNETR": (SwinUNETR, {"in_channels": 2, "out_channels": 2, "feature_size": 12,
                              "depths": [1, 1, 1, 1], "num_heads": [1, 1, 2, 2]}),
}  # fmt: skip


@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_of_the_published_work(brain, voxplain, write_model, name):
    kind, arguments = NETWORKS[name]
    side = 64 if name == "SwinUNETR" else 16
    folder = write_model(
        brain / name, n_channels=2, classes=["background", "lesion"],
        network={"target": f"monai.networks.nets.{name}", "arguments": arguments},
        input={"channels": ["flair", "mprage"]},
        window={"size": [side] * 3, "overlap": 0.25, "blend": "gaussian"},
    )  # fmt: skip
    torch.manual_seed(2)
    weights = {name: value.clone() for name, value in kind(**arguments).state_dict().items()}
    last = [name for name, value in weights.items() if value.shape == (2,)][-1]
    weights[last] = torch.tensor([60.0, -60.0])  # finds nothing: the true lesion is missed
    save_file(weights, folder / "weights.safetensors")
    small = np.zeros((1, *GRID.shape), np.uint8)
    small[0, 4:6, 6:8, 7] = 1
    write_nifti(Path("small.nii.gz"), small, GRID)
    done = voxplain(
        *BASE[:1], "--model", name, *BASE[3:], "--truth", "small.nii.gz", "--out", "out",
        "--method", "smoothgrad:n=1,noise=0.05", "--method", "gradient_max:voxels=2",
        "--method", "layer_cam", "--method", "grad_cam_pp",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    frame = pd.read_csv("out/instances.csv")
    assert list(frame["type"]) == ["FN"]
    saliency = pd.read_csv("out/saliency.csv").set_index("method")
    assert set(saliency.index) == {"smoothgrad", "gradient_max", "layer_cam", "grad_cam_pp"}
    for method in ("smoothgrad", "gradient_max"):
        assert (saliency.loc[method, "peak_positive"] > 0).all()
    known = json.loads(Path("out/provenance.json").read_text())
    assert known["provenance"]["parameters"]["methods"]["gradient_max"]["name"] == "gradient_max"
