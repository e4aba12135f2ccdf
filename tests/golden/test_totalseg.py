"""Label maps of a TotalSegmentator task are its own, with random weights in its own folders."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path

import nibabel
import numpy as np
import pytest
from tests.golden.test_nnunet import oblique

from voxplain.attribution import SmoothGrad, explain
from voxplain.errors import ImageError
from voxplain.inference.compute import Compute
from voxplain.inference.predict import predict
from voxplain.models import Model, Parts, load_model
from voxplain.space import Grid, Volume, read_image
from voxplain.space.nifti import write_nifti
from voxplain.testing.conformance import check_model
from voxplain.testing.nnunet import write_results

pytest.importorskip("totalsegmentator")
CPU = Compute("cpu")
CT = {"normalization_schemes": ["CTNormalization"]}


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Networks of ``total_fast``, ``total_mr`` (2) and ``total`` (5), small and untrained."""
    from totalsegmentator.map_to_binary import class_map, class_map_5_parts, class_map_parts_mr

    def write(
        task_id: int, names: dict[int, str], trainer: str, mm: float, patch: int, n_folds: int = 1
    ) -> None:
        write_results(
            tmp_path / "weights",
            dataset_name=f"Dataset{task_id:03d}_Test",
            trainer=trainer,
            labels={"background": 0, **{name: label for label, name in names.items()}},
            channels=("CT",),
            spacing=(mm, mm, mm),
            patch=(patch, patch, patch + 2),
            n_folds=n_folds,  # it takes the first only
            changes=CT,
        )

    write(297, class_map["total"], "nnUNetTrainer_4000epochs_NoMirroring", 3.0, 12, n_folds=2)
    for task_id, names in enumerate(class_map_parts_mr.values(), 850):
        write(task_id, names, "nnUNetTrainer_2000epochs_NoMirroring", 1.5, 16)
    for task_id, names in enumerate(class_map_5_parts.values(), 291):
        write(task_id, names, "nnUNetTrainerNoMirroring", 1.5, 16)
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
            nibabel.load(file), None, config["task_id"], model=config["model"],
            folds=config["folds"],
            trainer=config["trainer"], tta=False, multilabel_image=True,
            resample=config["resample"], task_name=task.removesuffix("_fast"), device="cpu",
            quiet=True, nr_threads_resampling=1,
        )  # fmt: skip
    return np.asarray(found.dataobj)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("task", "letters"),
    [
        ("total_fast", "RAS"),
        ("total_fast", "LPS"),
        ("total_fast", "SLA"),
        ("total_mr", "LPS"),
        pytest.param("total_mr", "SLA", marks=pytest.mark.slow),
        pytest.param("total", "AIR", marks=pytest.mark.slow),
    ],
)
def test_label_maps_are_those_of_totalsegmentator(
    task: str, letters: str, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = case(tmp_path, letters)
    wanted = theirs(file, task, weights, monkeypatch)
    model = load_model(f"totalseg:{task}")
    image = read_image(file)
    if isinstance(model, Parts):
        assert len(model.models) == {"total_mr": 2, "total": 5}[task]
        found = model.merge([predict(part, image, compute=CPU) for part in model.models])
    else:
        found = predict(model, image, compute=CPU)
    assert len(np.unique(wanted)) > 3
    np.testing.assert_array_equal(found.layers[0], wanted)
    np.testing.assert_allclose(found.grid.affine, nibabel.load(file).affine, atol=1e-5)


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_folds_of_a_task_with_several_are_averaged(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totalsegmentator.map_tasks_config import TASK_CONFIGS

    file = case(tmp_path, "LPS")
    one = load_model("totalseg:total_fast")
    assert isinstance(one, Model)
    first = predict(one, read_image(file), compute=CPU)
    monkeypatch.setitem(TASK_CONFIGS["total"]["sub_modes"]["fast"], "folds", None)
    wanted = theirs(file, "total_fast", weights, monkeypatch)
    model = load_model("totalseg:total_fast")
    assert isinstance(model, Model)
    assert model.n_views == 2
    found = predict(model, read_image(file), compute=CPU)
    np.testing.assert_array_equal(found.layers[0], wanted)
    assert (found.layers != first.layers).any()


@pytest.mark.usefixtures("weights")
def test_it_is_a_model_like_every_other() -> None:
    model = load_model("totalseg:total_fast")
    assert isinstance(model, Model)
    affine = oblique((1.1, 1.6, 2.3)).affine
    data = np.random.default_rng(2).normal(50, 300, (1, 21, 17, 13)).astype(np.float32)
    check_model(model, Volume(data, Grid((21, 17, 13), affine)))


@pytest.mark.usefixtures("weights")
def test_the_prepared_grid_says_where_voxels_truly_lie() -> None:
    model = load_model("totalseg:total_fast")
    assert isinstance(model, Model)
    grid = oblique((2.1, 2.6, 4.3), "LPS")
    world = np.moveaxis(grid.to_world(np.indices(grid.shape).reshape(3, -1).T), -1, 0)
    centre = grid.to_world(np.array([4.0, 11.0, 9.0]))
    squared = ((world - centre[:, None]) ** 2).sum(0).reshape(grid.shape)
    prepared = model.prepare(Volume(200 * np.exp(-squared[None] / (2 * 6.0**2)), grid))
    weights = prepared.data[0] - prepared.data.min()
    weights[weights < 0.2 * weights.max()] = 0
    index = np.array([np.average(i, weights=weights) for i in np.indices(weights.shape)])
    found = prepared.grid.to_world(index)
    assert np.abs(found - centre).max() < 0.35  # TotalSegmentator's own affine: 1.5 mm off


@pytest.mark.usefixtures("weights")
def test_fractions_that_it_would_cut_to_zero_are_refused() -> None:
    model = load_model("totalseg:total_fast")
    assert isinstance(model, Model)
    data = np.random.default_rng(3).uniform(0, 0.9, (1, 9, 8, 7))
    image = Volume(data, Grid((9, 8, 7), np.diag([2.0, 2.5, 4.0, 1.0])), name="normalised")
    with pytest.raises(ImageError, match=r"normalised: TotalSegmentator cuts .* nothing is left"):
        model.prepare(image)


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
