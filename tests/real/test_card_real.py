from __future__ import annotations

import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from voxplain.models import Model, load_model
from voxplain.models.card_file import read_card
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.testing.conformance import check_model

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT.parent / "shared" / "models" / "ct16_unet"
CT = ROOT.parent / "shared" / "data" / "ct_thorax_abdomen" / "ct.nii.gz"
CARD = Path(__file__).parent / "ct16_unet" / "model.yaml"

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (MODEL.is_dir() and CT.is_file()), reason="../shared is not there"),
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("ct16_unet")
    shutil.copy(CARD, folder)
    shutil.copy(MODEL / "weights.safetensors", folder)
    return load_model(folder)


@pytest.fixture(scope="module")
def ct() -> Volume:
    file = nibabel.load(CT)
    return Volume(np.asarray(file.dataobj, np.float32)[None], Grid(file.shape, file.affine))


def test_the_card_that_came_with_the_model_says_the_same(model: Model) -> None:
    assert read_card(MODEL / "model.yaml") == read_card(CARD)
    assert load_model(MODEL).info == model.info


def test_the_ct_is_prepared_and_one_window_runs(model: Model, ct: Volume) -> None:
    prepared = model.prepare(ct)
    assert prepared.grid.orientation == "RAS"
    np.testing.assert_allclose(prepared.grid.spacing, 3.0, rtol=1e-3)
    assert sorted(prepared.grid.shape) == sorted(ct.grid.shape)
    assert prepared.data.min() >= 0
    assert prepared.data.max() <= 1
    start = [(n - 64) // 2 for n in prepared.grid.shape]
    window = prepared.data[(slice(None), *[slice(s, s + 64) for s in start])]
    with torch.no_grad():
        logits = model.forward(torch.as_tensor(window[None].copy()))
    assert logits.shape == (1, 16, 64, 64, 64)
    assert torch.isfinite(logits).all()
    assert len(logits.argmax(dim=1).unique()) > 5


@pytest.mark.slow
def test_the_model_conforms(model: Model, ct: Volume) -> None:
    check_model(model, ct)
