"""MONAI bundles: what is loaded unasked, what only with trust, and that results are MONAI's."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from monai.networks.nets import UNet

from voxplain.attribution import explain
from voxplain.errors import ModelError, TrustError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.models import Model, load_model
from voxplain.space import Grid, Volume, read_image
from voxplain.space.nifti import write_nifti
from voxplain.testing.conformance import check_model
from voxplain.testing.phantoms import oblique_grid

NETWORK = {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "channels": [4, 6], "strides": [2],
}  # fmt: skip
SCALE = {
    "_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -2, "a_max": 2, "b_min": 0,
    "b_max": 1, "clip": True,
}  # fmt: skip


def config() -> dict[str, Any]:
    return {
        "imports": ["$import glob"],
        "image_key": "image",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "dims": 3,
        "network_def": {"_target_": "UNet", **NETWORK, "spatial_dims": "@dims"},
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "@image_key"},
                {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "Spacingd", "keys": ["image", "label"], "pixdim": [1.5, 1.2, 2.0],
                 "mode": ["bilinear", "nearest"], "allow_missing_keys": True},
                SCALE,
                {"_target_": "CropForegroundd", "keys": "image", "source_key": "image",
                 "margin": 1, "allow_smaller": True},
                {"_target_": "monai.transforms.NormalizeIntensityd", "keys": "image",
                 "nonzero": True},
                {"_target_": "EnsureTyped", "keys": "image"},
            ],
        },
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": "$[8, 2 * 4, @dims + 5]",
                    "sw_batch_size": 2, "overlap": 0.5, "mode": "gaussian"},
        "dataset": {"_target_": "Dataset", "data": "$[x for x in glob.glob('*')]"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        },
        "evaluator": {"_target_": "SupervisedEvaluator", "network": "@network"},
    }  # fmt: skip


METADATA = {
    "version": "0.1.0",
    "name": "small bundle",
    "task": "segmentation",
    "network_data_format": {
        "inputs": {"image": {"num_channels": 1, "channel_def": {"0": "ct"}}},
        "outputs": {"pred": {"num_channels": 3,
                             "channel_def": {"0": "background", "1": "liver", "2": "spleen"}}},
    },
}  # fmt: skip


def write(folder: Path, config: dict[str, Any], metadata: Any = None) -> Path:
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "models").mkdir(exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata or METADATA))
    (folder / "configs" / "inference.json").write_text(json.dumps(config))
    torch.manual_seed(3)
    torch.save(UNet(**NETWORK).state_dict(), folder / "models" / "model.pt")
    return folder


def case(letters: str = "LPS") -> Volume:
    grid = oblique_grid((13, 17, 11)).reorient(letters)
    data = np.random.default_rng(3).normal(size=(1, *grid.shape)).astype(np.float32)
    data[:, :2] = -5  # air: below the range, cropped away
    return Volume(data, grid)


def loaded(folder: Path, **options: Any) -> Model:
    model = load_model(folder, **options)
    assert isinstance(model, Model)
    return model


@pytest.mark.parametrize("letters", ["LPS", "RAS", "SLA"])
def test_preprocessing_and_logits_are_monais(letters: str, tmp_path: Path) -> None:
    folder = write(tmp_path / "b", config())
    write_nifti(tmp_path / "ct.nii.gz", case(letters).data, case(letters).grid)
    image = read_image(tmp_path / "ct.nii.gz")
    parser = ConfigParser(config())
    theirs = parser.get_parsed_content("preprocessing")({"image": str(tmp_path / "ct.nii.gz")})
    model = loaded(folder)
    with open_pipeline(model, image, Compute("cpu")) as pipeline:
        np.testing.assert_array_equal(pipeline.image.data, theirs["image"].numpy())
        affine = theirs["image"].affine.numpy()
        np.testing.assert_allclose(pipeline.image.grid.affine, affine, atol=1e-9)
        found = pipeline.logits(pipeline.clean, pipeline.inner)
    network = UNet(**NETWORK).eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt"))
    inferer = parser.get_parsed_content("inferer")
    with torch.no_grad():
        wanted = inferer(theirs["image"].as_tensor()[None], network)[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert model.info.name == "small bundle"
    assert model.info.class_names == ("background", "liver", "spleen")
    assert model.info.channel_names == ("ct",)
    assert model.info.activation == "softmax"


def test_it_is_a_model_like_every_other(tmp_path: Path) -> None:
    plain = config()
    del plain["preprocessing"]["transforms"][5:7]  # a spot has no foreground to crop to
    model = loaded(write(tmp_path, plain))
    check_model(model, case())
    assert explain(model, case(), "class:liver", "gradient").table.matrix().shape == (1, 3)


def test_two_dimensions_and_regions(tmp_path: Path) -> None:
    plain = config()
    small = {**NETWORK, "spatial_dims": 2, "in_channels": 2, "out_channels": 1}
    plain["network_def"] = {"_target_": "monai.networks.nets.UNet", **small}
    plain["preprocessing"] = [{"_target_": "ScaleIntensityd", "keys": "image"}]
    plain["inferer"] = {"_target_": "SimpleInferer"}
    plain["postprocessing"] = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
    formats = {
        "inputs": {"image": {"num_channels": 2}},
        "outputs": {"pred": {"channel_def": {"0": "lesion"}}},
    }
    folder = write(tmp_path, plain, {"network_data_format": formats})
    torch.save(UNet(**small).state_dict(), folder / "models" / "model.pt")
    model = loaded(folder)
    info = model.info
    assert (info.rank, info.window, info.activation) == (2, None, "sigmoid")
    assert info.channel_names == ("channel_0", "channel_1")
    grid = Grid((12, 16), np.array([[0.7, 0.1, 3], [0.0, 1.1, -8], [0, 0, 1]]))
    check_model(model, Volume(np.random.default_rng(0).normal(size=(2, 12, 16)), grid))


# -- trust ----------------------------------------------------------------------------------
Change = Callable[[dict[str, Any], str], None]


def _lambda(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["transforms"].append(
        {"_target_": "Lambdad", "keys": "image", "func": f"$lambda x: {run} or x"}
    )


def _expression(c: dict[str, Any], run: str) -> None:
    c["network_def"]["in_channels"] = f"$1 if {run} is None else 1"


def _hidden(c: dict[str, Any], run: str) -> None:
    c["n"] = {"deep": [f"${run} or 1"]}
    c["network_def"]["in_channels"] = "@n::deep::0"


def _arithmetic(c: dict[str, Any], run: str) -> None:
    c["n"] = f"${run} or 1"
    c["network_def"]["in_channels"] = "$@n * 1"


def _requires(c: dict[str, Any], run: str) -> None:
    c["network_def"]["_requires_"] = f"${run}"


def _mode(c: dict[str, Any], run: str) -> None:
    c["network_def"]["_mode_"] = "debug"


def _class(c: dict[str, Any], run: str) -> None:
    c["network_def"] = {"_target_": "os.system", "command": "touch marker"}


def _transform(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["transforms"].append(
        {"_target_": "monai.apps.utils.download_url", "url": "x"}
    )


def _inferer(c: dict[str, Any], run: str) -> None:
    c["inferer"] = {"_target_": "scripts.Inferer"}


def _argument(c: dict[str, Any], run: str) -> None:
    c["network_def"]["act"] = {"_target_": "subprocess.run", "args": "touch marker"}


def _whole(c: dict[str, Any], run: str) -> None:
    c["preprocessing"] = f"$Compose([]) if {run} else None"


HARMFUL = [_lambda, _expression, _hidden, _arithmetic, _requires, _mode, _class, _transform,
           _inferer, _argument, _whole]  # fmt: skip


@pytest.mark.parametrize("change", HARMFUL)
def test_code_is_listed_and_not_run(change: Change, tmp_path: Path) -> None:
    harmful = config()
    marker = tmp_path / "marker"
    change(harmful, f"__import__('pathlib').Path({str(marker)!r}).touch()")
    with pytest.raises(TrustError, match=r"(?s)would run code .*--trust-bundle") as caught:
        load_model(write(tmp_path / "b", harmful))
    assert not marker.exists()
    assert not (Path.cwd() / "marker").exists()
    assert "  - " in str(caught.value)


def test_everything_that_would_run_is_listed(tmp_path: Path) -> None:
    harmful = config()
    _lambda(harmful, "None")
    _inferer(harmful, "None")
    with pytest.raises(TrustError) as caught:
        load_model(write(tmp_path, harmful))
    lines = [line for line in str(caught.value).splitlines() if line.startswith("  - ")]
    assert lines == [
        "  - preprocessing::transforms::8::func: $lambda x: None or x",
        "  - preprocessing::transforms::8: Lambdad",
        "  - inferer: scripts.Inferer",
    ]


def test_macros_of_other_files_are_read_and_checked(tmp_path: Path) -> None:
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"net": {"_target_": "UNet", **NETWORK}, "bad": "$print('ran')"}))
    plain = config()
    plain["network_def"] = f"%{other}::net"
    assert loaded(write(tmp_path / "b", plain)).info.n_classes == 3
    plain["network_def"] = {"_target_": "UNet", **NETWORK, "in_channels": f"%{other}::bad"}
    with pytest.raises(TrustError, match=r"in_channels: \$print"):
        load_model(write(tmp_path / "b", plain))


def test_trust_runs_it(tmp_path: Path) -> None:
    folder = write(tmp_path, config())
    (folder / "own_scripts").mkdir()
    (folder / "own_scripts" / "__init__.py").write_text(
        "from monai.networks.nets import UNet\nclass Own(UNet):\n    pass\n"
    )
    own = config()
    own["network_def"]["_target_"] = "own_scripts.Own"
    _lambda(own, "None")
    write(folder, own)
    with pytest.raises(TrustError, match=r"network_def: own_scripts\.Own"):
        load_model(folder)
    model = loaded(folder, trust_code=True)
    plain = loaded(write(tmp_path / "plain", config()))
    np.testing.assert_array_equal(model.prepare(case()).data, plain.prepare(case()).data)
    assert model.info.window == plain.info.window
    assert "own_scripts" not in sys.modules
    assert str(folder) not in sys.path


@pytest.mark.parametrize("text", ["$2 ** 9 ** 9", "$'a' * 10 ** 9", "$(1).__class__", "$f(1)",
                                  "$[x for x in (1, 2)]", "$9999999999 * 9999999999"])  # fmt: skip
def test_only_small_arithmetic_is_done(text: str, tmp_path: Path) -> None:
    plain = config()
    plain["network_def"]["in_channels"] = text
    with pytest.raises(TrustError, match="network_def::in_channels"):
        load_model(write(tmp_path, plain))


# -- faults ---------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda c: c.pop("inferer"), "no inferer; there are imports"),
        (lambda c: c.update(network_def="@nowhere"), "refers to @nowhere, which is not there"),
        (lambda c: c.update(a="@b", b="@a", network_def="@a"), "refer to each other"),
        (lambda c: c["inferer"].update(roi_size=[-1, 8, 8]), "roi_size must be whole numbers"),
        (lambda c: c["inferer"].update(padding_mode="reflect"), "padding_mode must be constant"),
        (lambda c: c.update(postprocessing=[]), "give activation=softmax, sigmoid or none"),
        (lambda c: c["network_def"].update(out_channels=4), "weights do not fit"),
        (
            lambda c: c["preprocessing"]["transforms"].append(
                {"_target_": "RandFlipd", "keys": "image"}
            ),
            "draws at random",
        ),
    ],
)
def test_faults_are_told(change: Any, sentence: str, tmp_path: Path) -> None:
    plain = config()
    change(plain)
    with pytest.raises(ModelError, match=sentence):
        load_model(write(tmp_path, plain))


def test_faults_of_the_folder(tmp_path: Path) -> None:
    folder = write(tmp_path, config())
    (folder / "models" / "model.pt").rename(folder / "models" / "model.ts")
    with pytest.raises(ModelError, match=r"only model\.ts is there"):
        load_model(folder)
    with pytest.raises(ModelError, match=r"no other\.json; there are inference\.json, metadata"):
        load_model(folder, config="other")
    (folder / "configs" / "inference.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read as a bundle's config"):
        load_model(folder)
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": {"1": "a"}}}}}
    with pytest.raises(ModelError, match="channel_def must name every channel"):
        load_model(rewritten(folder, metadata))


def rewritten(folder: Path, metadata: dict[str, Any]) -> Path:
    (folder / "models" / "model.ts").unlink(missing_ok=True)
    return write(folder, config(), metadata)


def test_the_activation_can_be_given(tmp_path: Path) -> None:
    plain = config()
    plain["postprocessing"] = []
    assert loaded(write(tmp_path, plain), activation="sigmoid").info.activation == "sigmoid"
