"""What can be wrong with an nnU-Net results folder, and what is said then."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from voxplain.errors import ImageError, ModelError, TrustError
from voxplain.models import Model, load_model
from voxplain.models.nnunet_network import _module_of
from voxplain.space import Volume
from voxplain.testing.nnunet import write_results
from voxplain.testing.phantoms import oblique_grid

pytest.importorskip("nnunetv2")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_results(tmp_path, n_folds=2)


def edit(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def resave(folder: Path, change: Any, fold: int = 0) -> None:
    file = folder / f"fold_{fold}" / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    change(content)
    torch.save(content, file)


def test_everything_that_is_missing_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "plans.json").write_text("{")
    with pytest.raises(ModelError) as caught:
        load_model(tmp_path)
    for fault in ("3 faults", "plans.json cannot be read as JSON", "dataset.json is missing",
                  "no checkpoint: expected fold_0/checkpoint_final.pth"):  # fmt: skip
        assert fault in str(caught.value)


def test_keys_that_are_missing(folder: Path) -> None:
    (folder / "plans.json").write_text('{"configurations": {}}')
    (folder / "dataset.json").write_text("[]")
    with pytest.raises(ModelError, match=r"dataset.json holds a list"):
        load_model(folder)
    (folder / "dataset.json").write_text("{}")
    with pytest.raises(ModelError, match="no 'transpose_forward'") as caught:
        load_model(folder)
    assert "dataset.json has no 'channel_names'" in str(caught.value)


def test_the_folder_above_and_the_fold_below_are_understood(folder: Path) -> None:
    for place in (folder, folder.parent, folder / "fold_1"):
        assert load_model(place).info.name == "Dataset042_Test 3d_fullres"
    write_results(folder.parent.parent, name="2d", patch=(8, 8), spacing=(1, 1))
    with pytest.raises(ModelError, match=r"holds 2 trained models; give one of") as caught:
        load_model(folder.parent)
    assert "__2d" in str(caught.value)


def test_folds_and_checkpoints(folder: Path) -> None:
    assert load_model(folder).n_views == 16
    assert load_model(folder, folds="1", mirroring="off").n_views == 1
    with pytest.raises(ModelError, match=r"no fold 4 with checkpoint_final.pth; there are 0, 1"):
        load_model(folder, folds=[0, 4])
    with pytest.raises(
        ModelError, match=r"no fold has checkpoint_best.pth; there are checkpoint_f"
    ):
        load_model(folder, checkpoint="best")
    (folder / "fold_0" / "checkpoint_final.pth").rename(folder / "fold_0" / "checkpoint_best.pth")
    described = load_model(folder, checkpoint="best").describe_preparation()
    assert described["folds"] == ["0"]
    assert described["checkpoint"] == "checkpoint_best.pth"


def test_a_cascade_is_refused(folder: Path) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    cascade = {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres"}
    plans["configurations"]["3d_cascade_fullres"] = cascade
    edit(folder / "plans.json", configurations=plans["configurations"])
    for fold in (0, 1):
        resave(
            folder,
            lambda content: content["init_args"].update(configuration="3d_cascade_fullres"),
            fold,
        )
    with pytest.raises(ModelError, match=r"is a cascade: .* Explain the 3d_lowres model"):
        load_model(folder)


class Harmful:
    """Would run code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("this code ran",)


def test_a_checkpoint_with_code_is_refused_and_not_run(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resave(folder, lambda content: content.update(note=Harmful()))
    with pytest.raises(TrustError, match=r"holds .*print, which nnU-Net does not store"):
        load_model(folder)
    with pytest.raises(TrustError):  # no flag loads it
        load_model(folder, trust_code=True)
    assert "this code ran" not in capsys.readouterr().out


def test_another_file_is_no_checkpoint(folder: Path) -> None:
    torch.save({"state_dict": {}}, folder / "fold_0" / "checkpoint_final.pth")
    with pytest.raises(ModelError, match="no network_weights, init_args, trainer_name"):
        load_model(folder, folds=0)
    (folder / "fold_0" / "checkpoint_final.pth").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(ModelError, match="cannot be read as a checkpoint"):
        load_model(folder, folds=0)


@pytest.mark.parametrize(
    "prefix", ["_orig_mod.", "module.", "module._orig_mod.", "_orig_mod.module."]
)
def test_weights_of_compiled_and_parallel_networks(prefix: str, folder: Path) -> None:
    wanted = load_model(folder, folds=0).info.sha256

    def rename(content: dict[str, Any]) -> None:
        weights = content["network_weights"]
        content["network_weights"] = {prefix + name: value for name, value in weights.items()}

    resave(folder, rename)
    assert load_model(folder, folds=0).info.sha256 == wanted


def test_weights_of_another_network(folder: Path) -> None:
    plans = json.loads((folder / "plans.json").read_text())
    settings = plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    settings["features_per_stage"] = [4, 8]
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelError, match=r"fold_0/checkpoint_final\.pth: weights do not fit"):
        load_model(folder)


def test_a_network_from_elsewhere_needs_trust(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from dynamic_network_architectures.architectures.unet import PlainConvUNet as Own\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    plans = json.loads((folder / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "my_nets.Own"
    (folder / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(TrustError, match=r"would import my_nets\.Own .*--trust-code"):
        load_model(folder)
    assert load_model(folder, trust_code=True).n_views == 16


def test_a_trainer_that_changes_the_network_is_used(tmp_path: Path) -> None:
    folder = write_results(tmp_path, trainer="nnUNetTrainerBN", n_folds=0)
    plans = json.loads((folder / "plans.json").read_text())
    dataset = json.loads((folder / "dataset.json").read_text())
    from nnunetv2.training.nnUNetTrainer.variants.network_architecture.nnUNetTrainerBN import (
        nnUNetTrainerBN,
    )
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(plans)
    network = nnUNetTrainerBN.build_network_architecture(
        manager, manager.get_configuration("3d_fullres"), 1, 3, enable_deep_supervision=False
    )
    (folder / "fold_0").mkdir()
    torch.save(
        {
            "network_weights": network.state_dict(),
            "init_args": {"configuration": "3d_fullres"},
            "trainer_name": "nnUNetTrainerBN",
            "inference_allowed_mirroring_axes": None,
        },
        folder / "fold_0" / "checkpoint_final.pth",
    )
    model = load_model(folder)
    assert any(isinstance(m, torch.nn.BatchNorm3d) for m in model.module.modules())
    assert dataset["labels"]["liver"] == 1
    with pytest.raises(ModelError, match="weights do not fit"):
        load_model(folder, trainer="nnUNetTrainer")


def test_a_trainer_that_is_not_there(tmp_path: Path) -> None:
    folder = write_results(tmp_path, trainer="nnUNetTrainerMine")
    with pytest.raises(ModelError, match=r"give trainer=nnUNetTrainer; .*trainer=package.module:"):
        load_model(folder)
    assert load_model(folder, trainer="nnUNetTrainer").info.n_classes == 3
    with pytest.raises(TrustError, match="would import os and run its code"):
        load_model(folder, trainer="os:system")
    with pytest.raises(ModelError, match="cannot be imported"):
        load_model(folder, trainer="no_such_package:Trainer", trust_code=True)


def test_trainers_are_found_without_importing_them() -> None:
    found = _module_of("nnUNetTrainer_5epochs")
    assert found == "nnunetv2.training.nnUNetTrainer.variants.training_length.nnUNetTrainer_Xepochs"


def test_images_that_do_not_fit(folder: Path) -> None:
    model = load_model(folder)
    assert isinstance(model, Model)
    grid = oblique_grid((9, 8, 7))
    with pytest.raises(ImageError, match="every voxel is 0"):
        model.prepare(Volume(np.zeros((1, *grid.shape), np.float32), grid))
    with pytest.raises(ModelError, match=r"needs 1 channel \(ct\), the image has 2"):
        model.prepare(Volume(np.ones((2, *grid.shape), np.float32), grid))


def test_nothing_is_printed(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load_model(folder)
    assert isinstance(model, Model)
    grid = oblique_grid((9, 8, 7))
    model.prepare(Volume(np.random.default_rng(0).normal(size=(1, *grid.shape)), grid))
    assert capfd.readouterr() == ("", "")
