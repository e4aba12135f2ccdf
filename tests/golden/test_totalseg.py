"""Label maps of a TotalSegmentator task are its own, with random weights in its own folders."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.golden.test_nnunet import oblique
from tests.nnunet_folders import write_results

from voxplain.attribution import SmoothGrad, explain
from voxplain.inference.compute import Compute
from voxplain.inference.predict import predict
from voxplain.models import Model, Parts, load_model
from voxplain.space import Grid, Volume, read_image
from voxplain.space.nifti import write_nifti
from voxplain.testing.conformance import check_model

pytest.importorskip("totalsegmentator")
CPU = Compute("cpu")
CT = {"normalization_schemes": ["CTNormalization"]}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks of ``total_fast`` and of two of the parts of ``total``, small and untrained."""
    from totalsegmentator.map_to_binary import class_map, class_map_parts_mr

    def write(task_id: int, names: dict[int, str], trainer: str, mm: float, patch: int) -> None:
        write_results(
            tmp_path / "weights",
            dataset_name=f"Dataset{task_id:03d}_Test",
            trainer=trainer,
            labels={"background": 0, **{name: label for label, name in names.items()}},
            channels=("CT",),
            spacing=(mm, mm, mm),
            patch=(patch, patch, patch + 2),
            changes=CT,
        )

    write(297, class_map["total"], "nnUNetTrainer_4000epochs_NoMirroring", 3.0, 12)
    parts = list(class_map_parts_mr.values())
    write(850, parts[0], "nnUNetTrainer_2000epochs_NoMirroring", 1.5, 16)
    write(851, parts[1], "nnUNetTrainer_2000epochs_NoMirroring", 1.5, 16)
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "weights"))
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "home"))
    return tmp_path / "weights"


def case(folder: Path, letters: str) -> Path:
    from scipy.ndimage import gaussian_filter

    grid = oblique((2.1, 2.6, 4.3), letters)
    data = gaussian_filter(np.random.default_rng(5).normal(size=grid.shape), 1.5) * 900 + 50
    file = folder / "ct.nii.gz"
    write_nifti(file, np.rint(data)[None].astype(np.float32), grid)
    return file


def theirs(file: Path, task: str, weights: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """Run TotalSegmentator's own prediction, without its downloads and statistics."""
    from totalsegmentator.python_api import get_task_config

    with contextlib.redirect_stdout(io.StringIO()):
        import totalsegmentator.nnunet as program
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    fast = task.endswith("_fast")
    config = get_task_config(task.removesuffix("_fast"), fast=fast, quiet=True)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(weights))
        monkeypatch.setattr(f"nnunetv2.paths.{name}", str(weights))
    monkeypatch.setattr("nnunetv2.utilities.file_path_utilities.nnUNet_results", str(weights))
    monkeypatch.setattr(program, "get_output_folder", lambda task_id, trainer, plans, model: str(
        next(weights.glob(f"Dataset{task_id:03d}_*")) / f"{trainer}__{plans}__{model}"
    ))  # fmt: skip
    # its look-up by name imports every trainer, and one of them a package that may be broken
    find = "nnunetv2.inference.predict_from_raw_data.recursive_find_trainer_class_by_name"
    monkeypatch.setattr(find, lambda _: nnUNetTrainer)
    plain = program.nnUNetPredictor

    class OneProcess(plain):  # type: ignore[misc, valid-type]
        """Predict in this process; nnU-Net's own would start four."""

        def predict_from_files(self, source: str, out: str, **_: object) -> None:
            import torch

            reader = self.plans_manager.image_reader_writer_class()
            data, properties = reader.read_images([f"{source}/s01_0000.nii.gz"])
            half, torch.half = torch.half, torch.float32  # sums in float32
            try:
                labels = self.predict_single_npy_array(data, properties)
            finally:
                torch.half = half
            reader.write_seg(labels, f"{out}/s01.nii.gz", properties)

    monkeypatch.setattr(program, "nnUNetPredictor", OneProcess)
    with contextlib.redirect_stdout(io.StringIO()):
        found, _, _ = program.nnUNet_predict_image(
            nibabel.load(file), None, config["task_id"], model=config["model"], folds=[0],
            trainer=config["trainer"], tta=False, multilabel_image=True,
            resample=config["resample"], task_name=task.removesuffix("_fast"), device="cpu",
            quiet=True, nr_threads_resampling=1,
        )  # fmt: skip
    return np.asarray(found.dataobj)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("letters", ["RAS", "LPS", "SLA"])
@pytest.mark.parametrize("task", ["total_fast", "total_mr"])
def test_label_maps_are_those_of_totalsegmentator(
    task: str, letters: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = case(tmp_path, letters)
    wanted = theirs(file, task, weights, monkeypatch)
    model = load_model(f"totalseg:{task}")
    image = read_image(file)
    if isinstance(model, Parts):
        assert len(model.models) == 2
        found = model.merge([predict(part, image, compute=CPU) for part in model.models])
    else:
        found = predict(model, image, compute=CPU)
    assert len(np.unique(wanted)) > 3
    np.testing.assert_array_equal(found.layers[0], wanted)
    np.testing.assert_allclose(found.grid.affine, nibabel.load(file).affine, atol=1e-5)


@pytest.mark.usefixtures("weights")
def test_it_is_a_model_like_every_other() -> None:
    model = load_model("totalseg:total_fast")
    assert isinstance(model, Model)
    affine = oblique((1.1, 1.6, 2.3)).affine
    data = np.random.default_rng(2).normal(50, 300, (1, 21, 17, 13)).astype(np.float32)
    check_model(model, Volume(data, Grid((21, 17, 13), affine)))


@pytest.mark.usefixtures("weights")
def test_a_structure_of_one_part_is_explained_over_the_merged_regions(tmp_path: Path) -> None:
    model = load_model("totalseg:total_mr")
    assert isinstance(model, Parts)
    image = read_image(case(tmp_path, "LPS"))
    some = model.merge([predict(part, image, compute=CPU) for part in model.models])
    name = some.names[int(np.bincount(some.layers[some.layers > 0]).argmax())]
    result = explain(model, image, f"class:{name}", SmoothGrad(n=2), compute=CPU)
    assert result.prediction is not None
    np.testing.assert_array_equal(result.prediction.layers, some.layers)
    assert result.table.matrix().loc[name].sum() == pytest.approx(1, abs=1e-5)
