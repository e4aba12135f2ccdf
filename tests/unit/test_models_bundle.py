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
from monai.networks.nets import DenseNet, UNet
from PIL import Image

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
                {**SCALE},
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


def _nested(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["transforms"][4]["a_min"] = {"_target_": "subprocess.run", "args": "touch"}


def _disabled(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["transforms"][4]["_disabled_"] = f"${run}"


def _described(c: dict[str, Any], run: str) -> None:
    c["network_def"]["_desc_"] = f"${run}"


def _keys(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["transforms"][4]["keys"] = f"$[{run}]"


def _compose(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["map_items"] = f"${run}"


def _namesake(c: dict[str, Any], run: str) -> None:
    c["inferer"]["_target_"] = "scripts.SlidingWindowInferer"


def _own_transform(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["transforms"][4]["_target_"] = "scripts.Orientationd"


def _integers(c: dict[str, Any], run: str) -> None:
    c["preprocessing"]["transforms"].append(
        {"_target_": "CastToTyped", "keys": "image", "dtype": f"${run} or np.uint8"}
    )


def _engine(c: dict[str, Any], run: str) -> None:
    c["network_def"] = {
        "_target_": "monai.networks.trt_compiler.trt_compile", "model": c["network_def"],
        "base_path": "marker",
    }  # fmt: skip


def _whole(c: dict[str, Any], run: str) -> None:
    c["preprocessing"] = f"$Compose([]) if {run} else None"


HARMFUL = [_lambda, _expression, _hidden, _arithmetic, _requires, _mode, _class, _transform,
           _inferer, _argument, _nested, _disabled, _described, _keys, _compose, _namesake,
           _own_transform, _integers, _engine, _whole]  # fmt: skip


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


def test_code_that_prediction_does_not_need_is_passed_over(tmp_path: Path) -> None:
    harmless = config()
    marker = tmp_path / "marker"
    run = f"$__import__('pathlib').Path({str(marker)!r}).touch()"
    steps = harmless["preprocessing"]["transforms"]
    steps[0]["reader"] = steps[7]["device"] = harmless["inferer"]["sw_device"] = run
    steps.append({"_target_": "Lambdad", "keys": "label", "func": run})
    steps.append({"_target_": "CastToTyped", "keys": "image", "dtype": "$np.float32"})
    steps.append({"_target_": "Lambdad", "keys": "image", "func": run, "_disabled_": True})
    harmless["imports"].append(run)
    harmless["dataset"]["_requires_"] = harmless["evaluator"]["_disabled_"] = run
    harmless["postprocessing"]["transforms"].append({"_target_": "Lambdad", "func": run})
    model = loaded(write(tmp_path / "b", harmless))
    plain = loaded(write(tmp_path / "plain", config()))
    assert not marker.exists()
    assert model.describe_preparation() == plain.describe_preparation()
    np.testing.assert_array_equal(model.prepare(case()).data, plain.prepare(case()).data)


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
        (lambda c: c["inferer"].update(with_coord=True), "with_coord must be false"),
        (lambda c: c["inferer"].update(cval="a"), "cval must be one number"),
        (lambda c: c["inferer"].update(nonsense=1), "has no setting nonsense"),
        (lambda c: c.update(inferer={"_target_": "SliceInferer"}), "SliceInferer is not known"),
        (lambda c: c.update(inferer=[]), r"inferer \[\] is not known"),
        (lambda c: c.update(preprocessing=3), "preprocessing is no transform: 3"),
        (lambda c: c.update(network_def={**NETWORK}), "gives dict, expected a network"),
        (lambda c: c["network_def"].update(_disabled_=True), "gives NoneType, expected a network"),
        (lambda c: c["preprocessing"].update(lazy=True), "would see another image"),
        (lambda c: c["preprocessing"]["transforms"][4].update(keys=3), "keys must be names"),
        (lambda c: c["preprocessing"]["transforms"][4].update(x=3), "cannot be built"),
        (
            lambda c: c.update(postprocessing={"_target_": "AsDiscreted", "threshold": 0.9}),
            r"above \[0.9\], and voxplain those above 0.5",
        ),
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
    write(folder, config())
    (folder / "configs" / "inference.yaml").write_text("a: 1")
    with pytest.raises(ModelError, match=r"inference\.json and inference\.yaml are there; choose"):
        load_model(folder)
    assert loaded(folder, config="inference.json").info.n_classes == 3


@pytest.mark.parametrize(
    ("metadata", "sentence"),
    [
        ({"outputs": {"pred": {"channel_def": {"1": "a"}}}}, "outputs.pred.channel_def must name"),
        ({"outputs": {"pred": {"channel_def": {"a": 0}}}}, "outputs.pred.channel_def must name"),
        ({"outputs": {"pred": {"channel_def": ["a"]}}}, "outputs.pred.channel_def must name"),
        ({"outputs": {"pred": {"channel_def": {"0": "a", "1": "b", "2": "a"}}}},
         "each with a name of its own"),
        ({"inputs": {"image": {"num_channels": "1"}}}, "inputs.image.channel_def must name"),
        ({"outputs": ["pred"]}, "outputs must be a mapping"),
        ({"outputs": {"pred": ["a"]}}, "each of the outputs must be a mapping"),
        ({"inputs": {"ct": {"num_channels": 1}}},
         "which key is the image.* knows image, label, .* input ct"),
    ],
)  # fmt: skip
def test_faults_of_the_metadata(metadata: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    both = {"network_data_format": {**METADATA["network_data_format"], **metadata}}
    with pytest.raises(ModelError, match=sentence):
        load_model(write(tmp_path, config(), both))


def test_preprocessing_that_turns_the_image_is_refused(tmp_path: Path) -> None:
    plain = config()
    plain["preprocessing"]["transforms"][3]["diagonal"] = True
    model = loaded(write(tmp_path, plain))
    with pytest.raises(ModelError, match="turns the image"):
        model.prepare(case())
    straight = Grid((13, 17, 11), np.diag([0.7, 1.1, 2.3, 1.0]))
    found = model.prepare(Volume(case("RAS").data, straight)).grid.spacing
    assert found == pytest.approx((1.5, 1.2, 2.0))


@pytest.mark.parametrize("trust_code", [False, True])
def test_the_key_of_the_image_is_found(trust_code: bool, tmp_path: Path) -> None:
    named = json.loads(json.dumps(config()).replace('"image"', '"scan"').replace('"label"', '"x"'))
    named["preprocessing"]["transforms"][3].update(keys="scan", mode="bilinear")
    model = loaded(write(tmp_path / "b", named), trust_code=trust_code)
    plain = loaded(write(tmp_path / "plain", config()))
    np.testing.assert_array_equal(model.prepare(case()).data, plain.prepare(case()).data)
    metadata = json.loads(json.dumps(METADATA).replace('"image"', '"scan"'))
    assert loaded(write(tmp_path / "c", named, metadata)).info.channel_names == ("ct",)


@pytest.mark.parametrize("trust_code", [False, True])
def test_transforms_of_arrays_and_their_laziness(trust_code: bool, tmp_path: Path) -> None:
    arrays = config()
    arrays["preprocessing"]["transforms"] = [
        {"_target_": "LoadImage"},
        {"_target_": "EnsureChannelFirst"},
        {"_target_": "CropForeground"},
        {"_target_": "Spacing", "pixdim": [1.5, 1.2, 2.0], "lazy": True},
        {"_target_": "SpatialPad", "spatial_size": [14, 20, 14]},
        {"_target_": "BorderPad", "spatial_border": 1, "_disabled_": True},
    ]
    write_nifti(tmp_path / "ct.nii.gz", case().data, case().grid)
    theirs = ConfigParser(arrays).get_parsed_content("preprocessing")(tmp_path / "ct.nii.gz")
    model = loaded(write(tmp_path / "b", arrays), trust_code=trust_code)
    found = model.prepare(read_image(tmp_path / "ct.nii.gz"))
    np.testing.assert_array_equal(found.data, theirs.numpy())
    np.testing.assert_allclose(found.grid.affine, theirs.affine.numpy(), atol=1e-9)


@pytest.mark.parametrize(
    "reading",
    [{}, {"reader": "PILReader"}, {"reader": "PILReader", "reverse_indexing": False}],
)
def test_pictures_are_turned_as_monais_readers_do(reading: dict[str, Any], tmp_path: Path) -> None:
    plain = config()
    small = {**NETWORK, "spatial_dims": 2}
    plain["network_def"] = {"_target_": "UNet", **small}
    plain["preprocessing"] = [
        {"_target_": "LoadImaged", "keys": "image", **reading},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Flipd", "keys": "image", "spatial_axis": 0},
        {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 255,
         "b_min": 0, "b_max": 1},
    ]  # fmt: skip
    plain["inferer"]["roi_size"] = [8, 4]
    folder = write(tmp_path / "b", plain)
    torch.save(UNet(**small).state_dict(), folder / "models" / "model.pt")
    values = np.random.default_rng(0).integers(0, 255, (9, 14)).astype(np.uint8)
    picture = tmp_path / "slice.png"
    Image.fromarray(values).save(picture)
    steps = ConfigParser({"steps": {"_target_": "Compose", "transforms": plain["preprocessing"]}})
    theirs = steps.get_parsed_content("steps")({"image": str(picture)})["image"]
    model = loaded(folder)
    image = read_image(picture)
    found = model.prepare(image)
    np.testing.assert_array_equal(found.data, theirs.numpy())
    row, column = 2, 11  # of the file
    index = found.grid.to_index(image.grid.to_world([row, column])).astype(int)
    assert found.data[0][tuple(index)] == np.float32(values[row, column]) / np.float32(255)
    check_model(model, image)


def test_metadata_and_settings_by_reference(tmp_path: Path) -> None:
    plain = config()
    plain["network_def"]["out_channels"] = (
        "@_meta_::network_data_format::outputs::pred::num_channels"
    )
    plain.update(post=plain["postprocessing"], postprocessing="@post", is_softmax=True)
    plain["post"]["transforms"] = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True, "_disabled_": "@is_softmax"},
        {"_target_": "Activationsd", "keys": "pred", "softmax": "@is_softmax"},
    ]
    for trust_code in (False, True):
        info = loaded(write(tmp_path, plain), trust_code=trust_code).info
        assert (info.n_classes, info.activation) == (3, "softmax")


def test_a_classifier(tmp_path: Path) -> None:
    plain = config()
    plain["network_def"] = {
        "_target_": "DenseNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3,
        "init_features": 4, "growth_rate": 2, "block_config": [1, 1],
    }  # fmt: skip
    plain["inferer"] = {"_target_": "SimpleInferer"}
    del plain["preprocessing"]["transforms"][5]
    folder = write(tmp_path, plain, {**METADATA, "task": "Breast Density Classification"})
    network = DenseNet(3, 1, 3, init_features=4, growth_rate=2, block_config=(1, 1))
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    model = loaded(folder)
    assert (model.info.kind, model.info.rank, model.info.window) == ("classification", 3, None)
    prepared = model.prepare(case())
    with torch.no_grad():
        wanted = network.eval()(torch.from_numpy(prepared.data)[None])[0]
    with open_pipeline(model, case(), Compute("cpu")) as pipeline:
        found = pipeline.logits(pipeline.clean, pipeline.inner).flatten()
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_the_preparation_is_told(tmp_path: Path) -> None:
    told = loaded(write(tmp_path, config())).describe_preparation()
    assert json.loads(json.dumps(told)) == told
    assert told["config"] == "inference.json"
    assert [step["name"] for step in told["transforms"]] == [
        "Orientationd", "Spacingd", "ScaleIntensityRanged", "CropForegroundd",
        "NormalizeIntensityd",
    ]  # fmt: skip
    assert told["transforms"][1]["pixdim"] == [1.5, 1.2, 2.0]


def test_the_activation_can_be_given(tmp_path: Path) -> None:
    plain = config()
    plain["postprocessing"] = []
    assert loaded(write(tmp_path, plain), activation="sigmoid").info.activation == "sigmoid"
