from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.data import decollate_batch

from voxplain.models.load import load_model
from voxplain.space import write_nifti
from voxplain.testing import phantoms
from voxplain.train import Recipe, read_recipe
from voxplain.train.bundle import Trained, write_bundle

# MONAI's LoadImage asks for a decoder of DICOM that may not be there; no DICOM is read here
pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
needs_runner = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in ("ignite", "fire")),
    reason="MONAI's runner needs pytorch-ignite and fire",
)
needs_adapter = pytest.mark.skipif(
    importlib.util.find_spec("voxplain.models.bundle") is None, reason="no bundle adapter yet"
)
SET = [
    "network.name=unet", "crop.size=[8, 8, 12]", "input.spacing=[1.0, 1.2, 1.5]",
    "network.arguments={channels: [4, 6], strides: [2], norm: instance}", "name=two_blobs",
]  # fmt: skip
REQUIRED = {
    "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version",
    "task", "description", "authors", "copyright", "network_data_format", "changelog", "schema",
}  # fmt: skip


def make(folder: Path, channels: tuple[str, ...] = ("ct",), preset: str = "unet") -> Path:
    """A bundle of a network with random weights that predicts each class somewhere."""
    recipe = read_recipe(preset, SET)
    classes = ("background", "left", "right")
    record = {"n_training": 3, "n_validation": 1}
    trained = Trained(recipe, channels, classes, 0.5, {"left": 0.5, "right": None}, 2, record)
    folder.mkdir(parents=True)
    torch.manual_seed(1)
    network = network_of(recipe, len(channels))
    write_bundle(folder, trained, network.state_dict())
    return folder


def network_of(recipe: Recipe, n_channels: int) -> torch.nn.Module:
    return ConfigParser(
        {"_target_": "monai.networks.nets.UNet", "spatial_dims": 3, "in_channels": n_channels,
         "out_channels": 3, "num_res_units": 0, **recipe.network.arguments}
    ).get_parsed_content()  # fmt: skip


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return make(tmp_path / "bundle")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    grid = phantoms.oblique_grid((13, 11, 17), (1.1, 0.9, 1.4)).reorient("LPS")
    path = tmp_path / "patient.nii.gz"
    write_nifti(path, phantoms.volume(grid).data * 400, grid)
    return path


def opened(bundle: Path) -> ConfigParser:
    config = ConfigParser()
    config.read_config(bundle / "configs" / "inference.json")
    config.read_meta(bundle / "configs" / "metadata.json")
    config["bundle_root"] = str(bundle)
    return config


def test_the_metadata_say_what_goes_in_and_comes_out(bundle):
    about = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert about.keys() >= REQUIRED
    given = about["network_data_format"]["inputs"]["image"]
    assert (given["num_channels"], given["channel_def"]) == (1, {"0": "ct"})
    assert (given["spatial_shape"], given["value_range"]) == ([8, 8, 12], [0.0, 1.0])
    made = about["network_data_format"]["outputs"]["pred"]
    assert made["channel_def"] == {"0": "background", "1": "left", "2": "right"}
    assert made["num_channels"] == 3
    for part in (given, made):
        assert part["is_patch_data"] is True
        assert part["dtype"] == "float32"
        assert {"type", "format"} <= part.keys()


def test_what_a_reader_needs_holds_no_code(bundle):
    config = json.loads((bundle / "configs" / "inference.json").read_text())

    def texts(value):
        if isinstance(value, dict):
            return [text for part in value.values() for text in texts(part)]
        if isinstance(value, list):
            return [text for part in value for text in texts(part)]
        return [value] if isinstance(value, str) else []

    for part in ("network_def", "preprocessing", "inferer"):
        assert not [text for text in texts(config[part]) if text[:1] in "$%@"]
    targets = [text for text in texts(config) if text.startswith("monai.")]
    assert len(targets) > 10


def test_the_recipe_lies_in_it_and_can_be_trained_again(bundle):
    assert read_recipe(bundle / "configs" / "train.yaml") == read_recipe("unet", SET)
    weights = torch.load(bundle / "models" / "model.pt", weights_only=True)
    assert all(value.is_contiguous() for value in weights.values())


def test_the_page_tells_dice_and_how_to_run_it(bundle, tmp_path):
    page = (bundle / "docs" / "README.md").read_text()
    assert "| left | 0.500 |\n| right | in no validation case |\n| **mean** | **0.500** |" in page
    assert "--datalist \"['CASE.nii.gz']\"" in page
    two = (make(tmp_path / "two", ("flair", "t1"), "ies") / "docs" / "README.md").read_text()
    assert "--datalist \"[['CASE_flair.nii.gz', 'CASE_t1.nii.gz']]\"" in two
    assert "--image CASE_flair.nii.gz --image CASE_t1.nii.gz" in two


def test_monai_predicts_on_the_grid_of_the_image(bundle, image):
    """Every part but the evaluator, which needs ignite, as MONAI's runner would use it."""
    config = opened(bundle)
    config["datalist"] = [str(image)]
    config["output_dir"] = str(bundle.parent / "eval")
    network = config.get_parsed_content("network")
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    inferer, finish = (config.get_parsed_content(n) for n in ("inferer", "postprocessing"))
    for batch in config.get_parsed_content("dataloader"):
        with torch.inference_mode():
            batch["pred"] = inferer(batch["image"], network.eval())
        for item in decollate_batch(batch):
            finish(item)
    found = nibabel.load(bundle.parent / "eval" / "patient_seg.nii.gz")
    given = nibabel.load(image)
    assert found.shape == given.shape
    assert np.allclose(found.affine, given.affine, atol=1e-4)
    assert found.get_data_dtype() == np.uint8
    assert set(np.unique(found.dataobj)) <= {0, 1, 2}
    assert len(np.unique(found.dataobj)) > 1


@needs_runner
@pytest.mark.slow
@pytest.mark.parametrize("channels", [("ct",), ("flair", "t1")])
def test_monai_runs_the_bundle(tmp_path, image, channels):
    bundle = make(tmp_path / "bundle", channels)
    case = [str(image)] * len(channels)
    words = [sys.executable, "-m", "monai.bundle", "run", "--config_file"]
    words += [str(bundle / "configs" / "inference.json"), "--bundle_root", str(bundle)]
    subprocess.run([*words, "--datalist", str([case if len(case) > 1 else case[0]])], check=True)
    (found,) = (bundle / "eval").glob("*_seg.nii.gz")
    assert nibabel.load(found).shape == nibabel.load(image).shape


@needs_adapter
def test_voxplain_loads_it_without_being_told_to_trust_it(bundle):
    model = load_model(bundle)
    assert model.info.class_names == ("background", "left", "right")
    assert model.info.channel_names == ("ct",)
    assert model.info.activation == "softmax"
    assert model.info.window.size == (8, 8, 12)
    assert model.info.window.blend == "gaussian"
    saved = torch.load(bundle / "models" / "model.pt", weights_only=True)
    kept = model.module.state_dict()
    assert all(torch.equal(kept[name], saved[name]) for name in saved)
