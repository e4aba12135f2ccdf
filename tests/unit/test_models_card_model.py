from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from voxplain.errors import ModelError, TrustError
from voxplain.models import CardModel, load_model, wrap
from voxplain.models.weights import weights_sha256
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowSettings
from voxplain.testing.models import DeepSupervision, Linear, Pooled, Recorder, SmallNet, describe

SHAPE = (5, 7, 11)
ABC = ["a", "b", "c"]


def oblique(shape: tuple[int, ...] = SHAPE, spacing: tuple[float, ...] = (0.7, 1.1, 2.3)) -> Grid:
    """Tilted about two axes, the first array axis towards the left."""
    a, b = 0.2, -0.15
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.diag([-1, 1, 1]) @ np.diag(spacing)
    affine[:3, 3] = (12.0, -7.0, 30.0)
    return Grid(shape, affine)


def image(grid: Grid | None = None, n_channels: int = 1, **fields: Any) -> Volume:
    grid = oblique() if grid is None else grid
    data = np.random.default_rng(1).normal(size=(n_channels, *grid.shape)).astype(np.float32)
    return Volume(data, grid, **fields)


def model(**settings: Any) -> CardModel:
    settings = {"classes": ["background", "b", "c"], "channels": ["ct"], "rank": 3} | settings
    found = wrap(SmallNet(3, len(settings["channels"])), **settings)
    assert isinstance(found, CardModel)
    return found


# -- geometry -----------------------------------------------------------------------------
def test_without_settings_the_image_is_taken_as_it_is() -> None:
    case = image()
    prepared = model().prepare(case)
    assert prepared.grid == case.grid
    assert prepared.channels == ("ct",)
    assert prepared.name == case.name
    np.testing.assert_array_equal(prepared.data, case.data)


def test_reorientation_is_an_exact_copy() -> None:
    case = image()
    assert case.grid.orientation == "LAS"
    prepared = model(orientation="RAS").prepare(case)
    assert prepared.grid.orientation == "RAS"
    np.testing.assert_array_equal(prepared.data, case.data[:, ::-1])
    permuted = model(orientation="SLP").prepare(case)
    np.testing.assert_array_equal(permuted.data, case.data.transpose(0, 3, 1, 2)[..., ::-1])


def test_respacing_keeps_the_outer_faces_and_samples_linearly() -> None:
    grid = oblique((8, 6, 5), (1.5, 1.0, 2.0))
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    ramp = grid.to_world(index) @ [0.3, -1.2, 0.7]
    prepared = model(spacing=(3.0, 2.0, 4.0), orientation="LAS").prepare(Volume(ramp[None], grid))
    assert prepared.grid.shape == (4, 3, 2)  # 5 slices of 2 mm: 2.5 of 4 mm, rounded to even
    np.testing.assert_allclose(prepared.grid.spacing, (3.0, 2.0, 4.0))
    np.testing.assert_allclose(prepared.grid.to_world([-0.5] * 3), grid.to_world([-0.5] * 3))
    places = np.stack(np.meshgrid(*map(np.arange, (4, 3, 2)), indexing="ij"), axis=-1)
    expected = prepared.grid.to_world(places) @ [0.3, -1.2, 0.7]
    np.testing.assert_allclose(prepared.data[0], expected, atol=1e-9)


def test_spacing_is_given_along_the_axes_of_the_orientation() -> None:
    grid = oblique((4, 5, 6), (1.0, 2.0, 3.0))
    found = model(orientation="SAR", spacing=(3.0, 1.0, 1.0)).grid_of(grid)
    assert found.orientation == "SAR"
    np.testing.assert_allclose(found.spacing, (3.0, 1.0, 1.0))
    assert found.shape == (6, 10, 4)


def test_a_spacing_that_is_equal_but_for_rounding_is_left_alone() -> None:
    case = image(oblique(spacing=(1.0005, 0.9996, 2.0)))
    prepared = model(spacing=(1.0, 1.0, 2.0)).prepare(case)
    assert prepared.grid == case.grid
    np.testing.assert_array_equal(prepared.data, case.data)
    assert model(spacing=(1.01, 1.0, 2.0)).grid_of(case.grid) != case.grid


@given(
    shape=st.tuples(*[st.integers(1, 40)] * 3),
    size=st.tuples(*[st.integers(1, 40)] * 3),
    spacing=st.tuples(*[st.floats(0.2, 6)] * 3),
)
def test_a_fixed_size_is_met_over_the_same_extent(
    shape: tuple[int, ...], size: tuple[int, ...], spacing: tuple[float, ...]
) -> None:
    grid = oblique(shape, spacing)
    found = FIXED(size).grid_of(grid)
    assert found.shape == size
    for corner in ((0, 0, 0), (1, 1, 1), (1, 0, 1)):
        own = grid.to_world(np.multiply(corner, grid.shape) - 0.5)
        np.testing.assert_allclose(found.to_world(np.multiply(corner, size) - 0.5), own, atol=1e-6)


def FIXED(size: tuple[int, ...]) -> CardModel:  # noqa: N802
    return model(size=size, check=False)


def test_intensity_steps_come_after_resampling() -> None:
    case = image(oblique((6, 6, 6), (1.0, 1.0, 1.0)))
    doubled = model(intensity=[{"zscore": {}}], spacing=(2.0, 2.0, 2.0)).prepare(case)
    assert abs(doubled.data.mean()) < 1e-5
    assert abs(doubled.data.std() - 1) < 1e-5


# -- what does not fit --------------------------------------------------------------------
def test_wrong_number_of_channels() -> None:
    two = model(channels=["flair", "mprage"])
    with pytest.raises(ModelError, match=r"needs 2 channels \(flair, mprage\), the image has 1 ch"):
        two.prepare(image(channels=("flair",)))
    with pytest.raises(ModelError, match=r"needs 1 channel \(ct\), the image has 2 channels"):
        model().prepare(image(n_channels=2))


def test_known_channels_in_another_order() -> None:
    two = model(channels=["flair", "mprage"])
    with pytest.raises(ModelError, match="order flair, mprage, the image has mprage, flair"):
        two.prepare(image(n_channels=2, channels=("mprage", "flair")))
    assert two.prepare(image(n_channels=2)).channels == ("flair", "mprage")


def test_wrong_rank() -> None:
    flat = Volume(np.zeros((1, 4, 6)), Grid((4, 6), np.eye(3)))
    for call in (lambda: model().prepare(flat), lambda: model().grid_of(flat.grid)):
        with pytest.raises(ModelError, match=r"2D image for a 3D model: SmallNet .* \(4, 6\)"):
            call()


# -- wrap ---------------------------------------------------------------------------------
def test_wrap_describes_and_keeps_the_module() -> None:
    module = SmallNet(2, 2, 3)
    found = wrap(
        module,
        classes={0: "background", 1: "b", 2: "c"},
        channels=("x", "y"),
        window=(8, 12),
        name="mine",
    )
    assert found.module is module
    info = found.info
    assert (info.name, info.rank, info.kind, info.activation) == (
        "mine", 2, "segmentation", "softmax",
    )  # fmt: skip
    assert info.class_names == ("background", "b", "c")
    assert info.n_classes == 3
    assert info.window == WindowSettings((8, 12))
    assert info.sha256 == weights_sha256(module)
    settings = WindowSettings((8, 12), 0.5, "constant", "nnunet", -1.0)
    kept = wrap(module, classes=ABC, channels=["x", "y"], window=settings)
    assert kept.info.window == settings


def test_wrap_leaves_the_module_as_it_was() -> None:
    module = nn.Sequential(SmallNet(), nn.BatchNorm3d(3), nn.Dropout()).train()
    module[0].eval()
    module[0].first.weight.requires_grad_(False)
    before = weights_sha256(module)
    state = torch.random.get_rng_state()
    wrap(module, classes=ABC, channels=["ct"], window=(8, 8, 8))
    assert [part.training for part in module.modules()][:2] == [True, False]
    assert module[2].training
    assert weights_sha256(module) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not module[0].first.weight.requires_grad
    assert all(p.grad is None for p in module.parameters())


def test_wrap_tells_every_fault_at_once() -> None:
    with pytest.raises(ModelError) as caught:
        wrap(
            SmallNet(),
            classes=["a", "a"],
            channels=[],
            window=(8, 0, 8),
            activation="softmx",  # type: ignore[arg-type]
        )
    message = str(caught.value)
    assert message.startswith("SmallNet: 4 faults")
    for part in ("classes: 'a' is named", "channels: name at", "window.size.1", "'softmx'"):
        assert part in message
    with pytest.raises(ModelError, match=r"expected a torch.nn.Module, got function"):
        wrap(lambda x: x, classes=["a"], channels=["b"])  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"SmallNet: classes: expected a list, got 'abc'"):
        wrap(SmallNet(), classes="abc", channels=["x"], rank=3)
    with pytest.raises(ModelError, match="2D or 3D"):
        wrap(SmallNet(), classes=ABC, channels=["x"])


# -- the tiny forward ---------------------------------------------------------------------
@pytest.mark.parametrize(
    ("module", "settings", "message"),
    [
        (SmallNet(3, 2), {}, "first convolution takes 2 channels, the description names 1"),
        (SmallNet(2), {}, "first convolution is 2D, the model is described as 3D"),
        (SmallNet(3, n_classes=5), {}, "gives 5 classes, 3 are named"),
        (Linear([[1.0, 2.0]] * 3), {}, r"fails on an input of shape \(2, 1, 6, 7, 8\)"),
        (Pooled(SmallNet()), {}, r"a segmentation model must turn .* gives \(2, 3\)"),
        (
            SmallNet(),
            {"kind": "classification", "window": None, "size": (4, 5, 6)},
            "a classification mod",
        ),
        (nn.Sequential(SmallNet(), nn.MaxPool3d(2)), {}, r"gives \(2, 3, 3, 3, 4\)"),
        (nn.LSTM(8, 3, batch_first=True), {}, "fails on an input"),
    ],
)
def test_a_network_that_is_not_what_it_is_said_to_be(
    module: nn.Module, settings: dict[str, Any], message: str
) -> None:
    given = {"classes": ABC, "channels": ["ct"], "window": (6, 7, 8), **settings}
    with pytest.raises(ModelError, match=message):
        wrap(module, **given)
    assert wrap(module, **given, check=False).module is module


class DictOutput(nn.Module):
    def forward(self, windows: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": windows}


def test_an_output_that_is_no_tensor() -> None:
    with pytest.raises(ModelError, match="returns dict, expected a tensor"):
        wrap(DictOutput(), classes=["a"], channels=["x"], rank=2, activation="sigmoid")


class FixedInput(nn.Module):
    """Takes one spatial shape only, as networks with positional embeddings do."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.embedding = nn.Parameter(torch.zeros(shape))

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return windows + self.embedding


def test_a_network_that_takes_its_window_only() -> None:
    recorder = Recorder(FixedInput((40, 48, 36)))
    wrap(recorder, classes=["a"], channels=["x"], window=(40, 48, 36), activation="sigmoid")
    assert recorder.shapes == [(2, 1, 32, 32, 32), (2, 1, 40, 48, 36)]


def test_a_classifier_of_fixed_size() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    found = wrap(
        module,
        classes=["pneumonia"],
        channels=["xray"],
        kind="classification",
        activation="sigmoid",
        size=(3, 4),
    )
    case = Volume(np.ones((1, 9, 8)), Grid((9, 8), np.eye(3)))
    prepared = found.prepare(case)
    assert prepared.grid.shape == (3, 4)
    np.testing.assert_allclose(prepared.grid.spacing, (3.0, 2.0))
    np.testing.assert_allclose(prepared.data, 1.0)
    logits = found.forward(torch.as_tensor(prepared.data[None], dtype=torch.float32))
    assert logits.shape == (1, 1)


def test_float64_networks_are_probed_in_float64() -> None:
    recorder = Recorder(SmallNet().double())
    wrap(recorder, classes=ABC, channels=["x"], window=(4, 5, 6))
    assert recorder.batches[0].dtype == torch.float64


def test_deep_supervision_gives_its_first_output() -> None:
    module = DeepSupervision(Linear([[2.0], [3.0]]))
    windows = torch.ones(1, 1, 4, 5, 6)
    logits = describe(module, n_classes=2).forward(windows)
    torch.testing.assert_close(logits[0, :, 1, 2, 3], torch.tensor([2.0, 3.0]))


# -- load_model ---------------------------------------------------------------------------
def folder(path: Path, module: nn.Module | None = None, **changes: Any) -> Path:
    arguments = {"in_channels": 1, "out_channels": 2, "kernel_size": 3, "padding": 1}
    raw: dict[str, Any] = {
        "name": "one convolution",
        "kind": "segmentation",
        "network": {"target": "torch.nn.Conv3d", "arguments": arguments},
        "input": {"channels": ["ct"], "orientation": "RAS", "intensity": [{"clip": [-1, 1]}]},
        "window": {"size": [8, 9, 10], "overlap": 0.5},
        "activation": "softmax",
        "classes": ["background", "liver"],
    } | changes
    path.mkdir(exist_ok=True)
    (path / "model.yaml").write_text(yaml.safe_dump(raw))
    weights = nn.Conv3d(1, 2, 3, padding=1) if module is None else module
    save_file(weights.state_dict(), path / "weights.safetensors")
    return path


def test_load_from_folder_and_from_file(tmp_path: Path) -> None:
    module = nn.Conv3d(1, 2, 3, padding=1)
    path = folder(tmp_path / "model", module)
    for place in (path, str(path), path / "model.yaml"):
        found = load_model(place)
        assert found.info.sha256 == weights_sha256(module)
        assert found.info.name == "one convolution"
        assert found.info.window == WindowSettings((8, 9, 10), overlap=0.5)
        assert not found.module.training
    case = image()
    prepared = found.prepare(case)
    np.testing.assert_array_equal(prepared.data, np.clip(case.data[:, ::-1], -1, 1))


def test_load_faults(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no model: .*nowhere is not there"):
        load_model(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="no model there: it holds nothing"):
        load_model(tmp_path / "empty")
    path = folder(tmp_path / "a", nn.Conv3d(1, 4, 3))
    with pytest.raises(ModelError, match="weights do not fit the network"):
        load_model(path)
    path = folder(tmp_path / "b", classes=["a", "b", "c"])
    with pytest.raises(ModelError, match="one convolution: the network gives 2 classes, 3 are"):
        load_model(path)
    (path / "weights.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        load_model(path)


def test_own_network_class_needs_trust(tmp_path: Path) -> None:
    network = {"target": "card_own_network.Net"}
    path = folder(tmp_path / "model", network=network)
    (path / "card_own_network.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Conv3d):\n"
        "    def __init__(self):\n        super().__init__(1, 2, 3, padding=1)\n"
    )
    with pytest.raises(TrustError, match=r"would import card_own_network.Net"):
        load_model(path)
    assert load_model(path, trust_code=True).info.n_classes == 2
