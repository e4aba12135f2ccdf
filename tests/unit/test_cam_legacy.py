"""Grad-CAM's cells put where TensorFlow 1 put them, to repeat published maps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn

from voxplain.attribution import PRESETS, ClassTarget, Everywhere, explain
from voxplain.attribution.cam import GradCam
from voxplain.attribution.methods import method_of
from voxplain.errors import MethodError
from voxplain.inference.cells import upsample, upsample_tf1
from voxplain.inference.compute import Compute
from voxplain.models import Model
from voxplain.testing.models import describe
from voxplain.testing.phantoms import oblique_grid, volume

DOUBLE = Compute("cpu", precision="float64", batch_size=1)


def centroid(values: np.ndarray) -> np.ndarray:
    places = np.indices(values.shape).reshape(values.ndim, -1)
    return np.asarray((places * values.reshape(-1)).sum(1) / values.sum())


def test_a_hot_cell_lies_at_its_centre_or_as_published() -> None:
    """Acceptance test 4."""
    cells = torch.zeros((1, 1, 8, 8), dtype=torch.float64)
    cells[0, 0, 3, 4] = 1.0
    right, published = (f(cells, (320, 320))[0, 0].numpy() for f in (upsample, upsample_tf1))
    np.testing.assert_allclose(centroid(right), (139.5, 179.5), atol=1e-9)
    np.testing.assert_allclose(centroid(published), (120, 160), atol=1e-9)
    last = torch.zeros((1, 1, 8, 8), dtype=torch.float64)
    last[0, 0, 7, 7] = 1.0
    assert (upsample_tf1(last, (320, 320))[0, 0, 280:, 280:] == 1).all()  # goes on unchanged


@pytest.mark.parametrize(
    ("cells", "window"),
    [((3, 5), (7, 11)), ((2, 4, 3), (5, 4, 12)), ((1, 6), (4, 6)), ((9, 4), (6, 4))],
)
def test_scipy_reads_the_same_places(cells: tuple[int, ...], window: tuple[int, ...]) -> None:
    """Place v·n/w of each axis, linearly, the last cell replicated; also from more to fewer."""
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, *cells)))
    axes = [np.arange(w) * n / w for w, n in zip(window, cells, strict=True)]
    places = np.stack(np.meshgrid(*axes, indexing="ij"))
    found = upsample_tf1(values, window)
    assert found.dtype == torch.float64
    for n in range(2):
        for c in range(3):
            wanted = map_coordinates(values[n, c].numpy(), places, order=1, mode="nearest")
            np.testing.assert_allclose(found[n, c].numpy(), wanted, atol=1e-12)


class Blocks(nn.Module):
    """Means over blocks of 4 voxels along each axis, and logits (0, w·mean) from them."""

    def __init__(self, rank: int, w: float = 1.0) -> None:
        super().__init__()
        self.pool = nn.AvgPool3d(4) if rank == 3 else nn.AvgPool2d(4)
        self.w = w

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        hidden = self.pool(windows.abs())
        for axis in range(2, hidden.ndim):
            hidden = hidden.repeat_interleave(4, axis)
        return torch.cat([0 * hidden, self.w * hidden], 1)


def model_of(shape: tuple[int, ...], w: float = 1.0) -> Model:
    return describe(Blocks(len(shape), w), rank=len(shape), n_classes=2, window=shape)


@pytest.mark.parametrize("shape", [(8, 12), (8, 12, 16)])
def test_the_setting_changes_where_cells_lie_and_nothing_else(shape: tuple[int, ...]) -> None:
    image = volume(oblique_grid(shape, (0.7, 1.1, 2.3)[: len(shape)]), seed=3)
    targets = [ClassTarget("class_1", Everywhere()), ClassTarget("class_1")]
    found = {}
    for upsampling in ("half_pixel", "tf1"):
        method = method_of("grad_cam", {"layers": "pool", "upsampling": upsampling})
        result = explain(model_of(shape), image, targets, method, compute=DOUBLE)
        assert result.provenance.parameters["upsampling"] == upsampling
        found[upsampling] = [a.values[0] for a in result.attributions.values()]
    with torch.no_grad():
        x = torch.from_numpy(image.data.astype(np.float64))
        means = Blocks(len(shape)).pool(x.abs()[None])
    for name, function in (("half_pixel", upsample), ("tf1", upsample_tf1)):
        wanted = function(means, shape)[0, 0].numpy()
        for one in found[name]:  # each is the means, times its own gradient
            np.testing.assert_allclose(one / one.max(), wanted / wanted.max(), atol=1e-12)
    cells = tuple(slice(None, None, 4) for _ in shape)
    one = found["tf1"][0][cells]
    np.testing.assert_allclose(one / one.max(), means[0, 0] / means.max(), atol=1e-12)


def test_a_dead_map_is_flagged_and_no_nan() -> None:
    """Acceptance test 8, with the preset."""
    shape = (8, 12)
    result = explain(
        model_of(shape, w=-1.0), volume(oblique_grid(shape, (0.7, 1.1)), seed=3),
        ClassTarget("class_1", Everywhere()), GradCam(layers="pool", upsampling="tf1"),
    )  # fmt: skip
    (attribution,) = result.attributions.values()
    assert (attribution.values == 0).all()
    assert "VX107" in {f.code for f in result.findings}


def test_the_preset_is_as_published_and_the_default_is_not() -> None:
    assert PRESETS["arun-grad_cam"] == GradCam(upsampling="tf1")
    assert GradCam().upsampling == "half_pixel"
    with pytest.raises(MethodError, match="upsampling is one of half_pixel, tf1; got 'cubic'"):
        method_of("grad_cam", {"upsampling": "cubic"})
