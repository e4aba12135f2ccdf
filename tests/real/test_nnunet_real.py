"""A real nnU-Net on a real CT: its own segmentation, and an explanation of it."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from voxplain.cli import app
from voxplain.inference.predict import predict
from voxplain.models import Model, load_model
from voxplain.space import read_image, read_labels

SHARED = Path(__file__).parents[3] / "shared"
FOLDER = SHARED / "models" / "nnunet_ct" / "nnUNetTrainer__smallPlans__3d_fullres"
DATA = SHARED / "data" / "ct_thorax_abdomen"
pytest.importorskip("nnunetv2")
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not FOLDER.is_dir(), reason=f"{FOLDER.name} is not beside the project"),
]
LABELS = {"liver": [5], "spleen": [1], "kidneys": [2, 3], "vertebrae": range(26, 51)}


def test_its_dice_is_that_of_its_authors() -> None:
    model = load_model(FOLDER, mirroring=False)
    assert isinstance(model, Model)
    found = predict(model, read_image(DATA / "ct.nii.gz"))
    truth = read_labels(DATA / "segmentation.nii.gz").layers[0]
    for name, ids in LABELS.items():
        true, mine = np.isin(truth, list(ids)), found.mask(name)
        assert 2 * (true & mine).sum() / (true.sum() + mine.sum()) > 0.96


@pytest.mark.slow
@pytest.mark.parametrize("mirroring", [False, True])
def test_its_segmentation_is_that_of_nnunet(mirroring: bool, monkeypatch) -> None:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    model = load_model(FOLDER, mirroring=mirroring)
    assert isinstance(model, Model)
    found = predict(model, read_image(DATA / "ct.nii.gz")).layers[0]
    for exact in (True, False):
        with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
            if exact:
                patch.setattr(torch, "half", torch.float32)
            theirs = nnUNetPredictor(
                use_mirroring=mirroring, device=torch.device("cpu"), allow_tqdm=False,
                perform_everything_on_device=False,
            )  # fmt: skip
            theirs.initialize_from_trained_model_folder(str(FOLDER), (0,))
            reader = theirs.plans_manager.image_reader_writer_class()
            wanted = theirs.predict_single_npy_array(
                *reader.read_images([str(DATA / "ct.nii.gz")])
            ).transpose(2, 1, 0)
        n_different = int((found != wanted).sum())
        # logits summed in float16, as the predictor does, decide some voxels otherwise
        assert n_different <= (0 if exact else 50)


@pytest.mark.slow
def test_it_is_explained_from_the_command_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app,
        ["explain", "--model", str(FOLDER), "--model-set", "mirroring=off", "--image",
         str(DATA / "ct.nii.gz"), "--target", "class:liver", "--set", "n=2", "--quiet",
         "--regions", f"totalseg:{DATA / 'segmentation.nii.gz'}", "--out", str(tmp_path / "out")],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())
    settings = provenance["provenance"]["parameters"]
    assert settings["preprocessing"]["framework"] == "nnU-Net v2"
    assert settings["window_scheme"] == "nnunet"
    assert (tmp_path / "out" / "report.html").is_file()
