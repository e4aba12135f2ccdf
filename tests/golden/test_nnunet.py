"""Predictions of an nnU-Net are nnUNetPredictor's own, and its gradient is that of all of it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch

from voxplain.attribution import ClassTarget, Everywhere, Mask, explain
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import open_pipeline
from voxplain.inference.predict import predict
from voxplain.models import Model, load_model
from voxplain.space import Grid, LabelMap, Volume, read_image
from voxplain.space.nifti import write_nifti
from voxplain.space.windows import WindowPlan
from voxplain.testing.nnunet import REGIONS, write_results

pytest.importorskip("nnunetv2")
CPU = Compute("cpu")
SHAPE = (19, 15, 13)  # x, y, z


def oblique(spacing: tuple[float, ...] = (0.8, 1.1, 2.3), letters: str = "LPS") -> Grid:
    """Rotated by three angles, as scanners write it (no shear: SimpleITK refuses that)."""
    from scipy.spatial.transform import Rotation

    affine = np.eye(4)
    affine[:3, :3] = Rotation.from_euler("xyz", [0.2, -0.15, 0.1]).as_matrix() * spacing
    affine[:3, 3] = (3, -80, 200)
    return Grid(SHAPE, affine).reorient(letters)


def case(folder: Path, grid: Grid, n_channels: int = 1, *, rim: int = 2) -> list[Path]:
    """Smooth random channels with a rim of zeros that the crop removes, one file each."""
    from scipy.ndimage import gaussian_filter

    rng = np.random.default_rng(7)
    files = []
    for channel in range(n_channels):
        data = gaussian_filter(rng.normal(size=grid.shape), 1.2) * 300 + 20 * channel + 5
        data[:rim], data[:, -rim:] = 0, 0
        file = folder / f"case_{channel:04d}.nii.gz"
        write_nifti(file, data[None].astype(np.float32), grid)
        files.append(file)
    return files


def predictor(folder: Path, *, mirroring: bool, folds: tuple[int, ...], step: float = 0.5) -> Any:
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    found = nnUNetPredictor(
        tile_step_size=step, use_mirroring=mirroring, device=torch.device("cpu"),
        perform_everything_on_device=False, allow_tqdm=False,
    )  # fmt: skip
    found.initialize_from_trained_model_folder(str(folder), folds)
    return found


@contextlib.contextmanager
def single_precision(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the predictor sum logits in float32; its blend weights stay rounded to float16."""
    with monkeypatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(torch, "half", torch.float32)
        yield


Run = Callable[..., tuple[np.ndarray, np.ndarray, np.ndarray, LabelMap, Model]]


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Logits and label image of nnU-Net and of voxplain for one folder and case."""

    def run(
        grid: Grid,
        folder: Path,
        *,
        n_channels: int = 1,
        mirroring: bool = True,
        folds: tuple[int, ...] = (0,),
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, LabelMap, Model]:
        files = case(tmp_path, grid, n_channels)
        with single_precision(monkeypatch):
            theirs = predictor(folder, mirroring=mirroring, folds=folds)
            reader = theirs.plans_manager.image_reader_writer_class()
            data, properties = reader.read_images([str(file) for file in files])
            prepared, _, _ = theirs.configuration_manager.preprocessor_class(
                verbose=False
            ).run_case_npy(
                data, None, dict(properties), theirs.plans_manager,
                theirs.configuration_manager, theirs.dataset_json,
            )  # fmt: skip
            wanted = theirs.predict_logits_from_preprocessed_data(torch.from_numpy(prepared))
            labels = theirs.predict_single_npy_array(data, properties)
        exported = tmp_path / "nnunet.nii.gz"
        reader.write_seg(labels, str(exported), properties)

        model = load_model(folder, folds=folds, mirroring=mirroring)
        assert isinstance(model, Model)
        image = read_image(files)
        with open_pipeline(model, image, CPU) as pipeline:
            np.testing.assert_array_equal(pipeline.image.data, prepared)
            found = pipeline.logits(pipeline.clean, pipeline.inner).numpy()
        on_grid = nibabel.load(exported)
        np.testing.assert_allclose(on_grid.affine, image.grid.affine, atol=1e-4)
        return (
            found, wanted.numpy(), np.asarray(on_grid.dataobj), predict(model, image, compute=CPU),
            model,
        )  # fmt: skip

    return run


CASES: dict[str, dict[str, Any]] = {
    "3d_fullres": {},
    "3d_lowres": {"name": "3d_lowres", "spacing": (3.0, 2.0, 2.0)},
    "anisotropic": {"spacing": (4.6, 0.9, 0.9), "patch": (4, 10, 12)},
    "2d": {"name": "2d", "patch": (10, 12), "spacing": (0.9, 1.0)},
    "transposed": {"transpose": (1, 0, 2), "spacing": (1.0, 2.0, 1.0)},
    "two channels": {"channels": ("t1", "t2")},
    "regions": {"labels": REGIONS},
    "ignore label": {"labels": {"background": 0, "liver": 1, "ignore": 2}},
    "reoriented": {"reader": "NibabelIOWithReorient"},
    "some mirrors": {"mirror_axes": (0, 2)},
    "CT": {"changes": {"normalization_schemes": ["CTNormalization"]}},
    "three folds": {"n_folds": 3},
}


@pytest.mark.parametrize("mirroring", [True, False])
@pytest.mark.parametrize("kind", CASES)
def test_logits_and_labels_are_those_of_nnunet(
    kind: str, mirroring: bool, both: Run, tmp_path: Path
) -> None:
    settings = CASES[kind]
    folder = write_results(tmp_path, **settings)
    folds = tuple(range(settings.get("n_folds", 1)))
    found, wanted, labels, ours, model = both(
        oblique(), folder,
        n_channels=len(settings.get("channels", "1")), mirroring=mirroring, folds=folds,
    )  # fmt: skip
    assert np.abs(found - wanted).max() <= 1e-4
    assert len(np.unique(labels)) > 1
    painted = np.zeros(ours.grid.shape, labels.dtype)
    for layer in ours.layers:
        painted[layer > 0] = layer[layer > 0]
    np.testing.assert_array_equal(painted, labels)
    n_axes = len(settings.get("mirror_axes", settings.get("patch", "zyx")))
    assert model.n_views == len(folds) * (2**n_axes if mirroring else 1)


@pytest.mark.parametrize("letters", ["RAS", "PIR", "SLA"])
@pytest.mark.parametrize("kind", ["3d_fullres", "2d", "reoriented"])
def test_on_any_orientation(kind: str, letters: str, both: Run, tmp_path: Path) -> None:
    folder = write_results(tmp_path, **CASES[kind])
    found, wanted, labels, ours, _ = both(oblique(letters=letters), folder, mirroring=False)
    assert np.abs(found - wanted).max() <= 1e-4
    np.testing.assert_array_equal(ours.layers[0], labels)


def test_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    folder = write_results(
        tmp_path, name="2d", patch=(10, 12), spacing=(1.0, 1.0),
        channels=("R", "G", "B"), reader="NaturalImage2DIO",
    )  # fmt: skip
    pixels = np.random.default_rng(3).integers(0, 255, (21, 17, 3), np.uint8)
    pixels[:3] = 0
    file = tmp_path / "photo.png"
    Image.fromarray(pixels).save(file)
    with single_precision(monkeypatch):
        theirs = predictor(folder, mirroring=True, folds=(0,))
        data, properties = theirs.plans_manager.image_reader_writer_class().read_images([str(file)])
        wanted = theirs.predict_single_npy_array(data, properties)
    model = load_model(folder)
    assert isinstance(model, Model)
    image = read_image(file)
    assert model.info.rank == 2
    image = Volume(image.data, image.grid, model.info.channel_names)
    np.testing.assert_array_equal(predict(model, image, compute=CPU).layers, wanted)


def test_the_gradient_is_that_of_all_folds_and_mirrors(tmp_path: Path) -> None:
    folder = write_results(tmp_path, n_folds=2, channels=("a", "b"), mirror_axes=(0, 2))
    model = load_model(folder)
    assert isinstance(model, Model)
    assert model.info.window is not None
    image = read_image(case(tmp_path, oblique(), 2))
    prepared = model.prepare(image)
    x = torch.from_numpy(prepared.data).double().requires_grad_()
    plan = WindowPlan(prepared.grid.shape, model.info.window)
    assert len(plan) >= 4
    assert plan.padded_shape == plan.shape
    total = torch.zeros((3, *plan.shape), dtype=torch.float64)
    norm = torch.zeros(plan.shape, dtype=torch.float64)
    weight = torch.from_numpy(plan.weight.copy())
    networks = [network.double() for network in model.module]
    for w in range(len(plan)):
        place = (slice(None), *plan.box(w).slices)
        window = x[place][None]
        views = [
            network(window.flip(axes)).flip(axes)[0]
            for network in networks
            for axes in ((), (2,), (4,), (2, 4))
        ]
        mean = torch.stack(views).mean(0)
        total = torch.index_put(total, _indices(place, total.shape), weight * mean, accumulate=True)
        norm[place[1:]] += weight
    logits = total / norm
    mask = np.random.default_rng(2).random(plan.shape) < 0.2
    value = (torch.softmax(logits, 0)[1] * torch.from_numpy(mask)).sum()
    (wanted,) = torch.autograd.grad(value, x)
    for network in networks:
        network.float()

    region = LabelMap(mask[None].astype(np.uint8), prepared.grid, {1: "some"})
    target = ClassTarget("liver", Mask(region), score="probability")
    found = _on_model_grid(model, prepared, target)
    scale = float(wanted.abs().max())
    assert np.abs(found - wanted.numpy()).max() <= 1e-9 * scale


def _indices(place: tuple[slice, ...], shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
    """Index tensors of a box, for sums that autograd follows."""
    ranges = [torch.arange(n)[part] for n, part in zip(shape, place, strict=True)]
    return torch.meshgrid(*ranges, indexing="ij")


def _on_model_grid(model: Model, prepared: Volume, target: ClassTarget) -> np.ndarray:
    """Gradient map of an image that is already prepared."""

    class Prepared(type(model)):  # type: ignore[misc]
        def prepare(self, image: Volume) -> Volume:
            return image

        def label_image(self, logits: Any, grid: Grid, image: Volume) -> LabelMap:
            return Model.label_image(self, logits, grid, image)

    same = Prepared.__new__(Prepared)
    same.__dict__.update(model.__dict__)
    compute = Compute("cpu", precision="float64", batch_size=3)
    image = Volume(prepared.data, prepared.grid, prepared.channels)
    (found,) = explain(same, image, target, "gradient", compute=compute).attributions.values()
    return found.values


def test_what_the_crop_removes_has_no_attribution(tmp_path: Path) -> None:
    folder = write_results(tmp_path)
    image = read_image(case(tmp_path, oblique(), rim=3))
    model = load_model(folder, mirroring=False)
    result = explain(model, image, ClassTarget("liver", Everywhere()), "gradient", compute=CPU)[
        "liver@everywhere"
    ]
    assert not result.values[0, :2].any()
    assert result.values[0, 4:-1, 1:-4].any()
