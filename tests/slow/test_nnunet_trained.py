"""An nnU-Net that nnunetv2 itself planned and trained: explained, and predicted as nnU-Net does."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from voxplain.cli import app
from voxplain.space import read_labels

pytest.importorskip("nnunetv2")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]
SCRIPT = Path(__file__).with_name("train_nnunet.py")


@pytest.fixture(scope="module")
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with raw data and results; trained once and kept in pytest's cache, if it has one."""
    cache = getattr(request.config, "cache", None)
    folder = Path(cache.mkdir("nnunet_torso")) if cache else tmp_path_factory.mktemp("nnunet")
    if not list(folder.glob("results/*/*/fold_0/checkpoint_final.pth")):
        subprocess.run([sys.executable, "-W", "ignore", str(SCRIPT), str(folder)], check=True)
    return folder


@pytest.mark.parametrize("mirroring", ["off", "on"])
def test_it_is_explained_and_predicts_as_nnunet(
    mirroring: str, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    image = trained / "raw" / "Dataset043_Torso" / "imagesTs" / "p950_0000.nii.gz"
    out = tmp_path / "out"
    done = CliRunner().invoke(
        app,
        ["explain", "--model", str(trained / "results" / "Dataset043_Torso"), "--image", str(image),
         "--target", "class:liver", "--method", "gradient", "--model-set",
         f"mirroring={mirroring}", "--out", str(out), "--quiet"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert (out / "report.html").is_file()
    shares = json.loads((out / "provenance.json").read_text())["provenance"]["parameters"]
    assert shares["n_views"] == (8 if mirroring == "on" else 1)

    with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(torch, "half", torch.float32)  # sums in float32
        theirs = nnUNetPredictor(
            use_mirroring=mirroring == "on", device=torch.device("cpu"), allow_tqdm=False,
            perform_everything_on_device=False,
        )  # fmt: skip
        (folder,) = (trained / "results" / "Dataset043_Torso").iterdir()
        theirs.initialize_from_trained_model_folder(str(folder), (0,))
        reader = theirs.plans_manager.image_reader_writer_class()
        wanted = theirs.predict_single_npy_array(*reader.read_images([str(image)]))
    found = read_labels(out / "prediction.nii.gz", names={}).layers[0]
    np.testing.assert_array_equal(found, wanted.transpose(2, 1, 0))

    truth = read_labels(
        trained / "raw" / "Dataset043_Torso" / "labelsTs" / "p950.nii.gz", names={}
    ).layers[0]
    for label in (1, 3):  # lung, liver
        both = ((found == label) & (truth == label)).sum()
        assert 2 * both / ((found == label).sum() + (truth == label).sum()) > 0.7
