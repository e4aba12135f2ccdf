from __future__ import annotations

import numpy as np
import pytest
import torch
from monai.inferers import sliding_window_inference
from torch import nn

from voxplain.attribution import ClassTarget, Everywhere, SmoothGrad, explain
from voxplain.errors import ModelError
from voxplain.inference.compute import Compute
from voxplain.inference.cotangent import DenseCotangent, SumCotangent
from voxplain.inference.pipeline import Passes, open_pipeline
from voxplain.models import wrap
from voxplain.records import Explanation
from voxplain.space.box import Box
from voxplain.space.grid import Grid
from voxplain.space.volume import Volume
from voxplain.space.windows import WindowPlan, WindowSettings
from voxplain.testing.models import (
    DeepSupervision,
    Linear,
    OutOfMemory,
    Pooled,
    Recorder,
    SmallNet,
    describe,
)
from voxplain.testing.phantoms import oblique_grid, volume

SHAPE = (5, 7, 11)
WINDOW = WindowSettings((4, 5, 6), overlap=0.4, blend="gaussian")
CPU = Compute("cpu", batch_size=2)


@pytest.fixture
def image() -> Volume:
    return volume(oblique_grid(SHAPE), n_channels=2, seed=4)


# -- stitched logits ------------------------------------------------------------------------
@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize("shape", [(5, 7, 11), (3, 9, 4)])
def test_logits_are_those_of_monai(blend: str, shape: tuple[int, int, int]) -> None:
    image = volume(oblique_grid(shape), n_channels=2, seed=4)
    net = SmallNet(3, 2, 3, seed=2)
    window = WindowSettings((4, 5, 6), 0.4, blend, pad_value=0.3)  # type: ignore[arg-type]
    with torch.no_grad():
        wanted = sliding_window_inference(
            torch.from_numpy(image.data)[None], (4, 5, 6), 2, net, overlap=0.4, mode=blend, cval=0.3
        )
    with open_pipeline(describe(net, n_channels=2, window=window), image, CPU) as pipeline:
        found = pipeline.logits(pipeline.clean, pipeline.inner)
    torch.testing.assert_close(found, wanted[0], rtol=1e-5, atol=1e-6)


def test_logits_of_a_part_run_only_its_windows(image: Volume) -> None:
    net = Recorder(SmallNet(3, 2, 3))
    with open_pipeline(describe(net, n_channels=2, window=WINDOW), image, CPU) as pipeline:
        whole = pipeline.logits(pipeline.clean, pipeline.inner)
        net.clear()
        box = Box((0, 0, 0), (1, 2, 3))
        part = pipeline.logits(pipeline.clean, box)
        assert net.n_windows == len(pipeline.plan.touching(box)) < len(pipeline.plan)
    torch.testing.assert_close(part, whole[(slice(None), *box.slices)])


def test_passes_are_counted_and_told(image: Volume) -> None:
    model = describe(SmallNet(3, 2, 3), n_channels=2, window=WINDOW)
    told: list[int] = []
    with open_pipeline(model, image, CPU) as pipeline:
        pipeline.on_pass = told.append
        pipeline.logits(pipeline.clean, pipeline.inner)
        assert pipeline.passes == Passes(len(pipeline.plan), 0)
        assert pipeline.passes.total == sum(told) == len(pipeline.plan)
        assert max(told) == 2


def test_shares_of_the_windows_sum_to_one(image: Volume) -> None:
    model = describe(SmallNet(3, 2, 3), n_channels=2, window=WINDOW)
    with open_pipeline(model, image, Compute("cpu", precision="float64")) as pipeline:
        total = torch.zeros(pipeline.plan.padded_shape, dtype=torch.float64)
        for i in range(len(pipeline.plan)):
            total[pipeline.output_box(i).slices] += pipeline.share(i)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.AvgPool3d(2), r"logits of shape \(2, 3, 4, 5, 6\) were expected for input"),
        (nn.Conv3d(2, 2, 1), r"got \(2, 2, 4, 5, 6\)"),
    ],
)
def test_logits_of_another_shape_are_refused(image: Volume, net: nn.Module, message: str) -> None:
    model = describe(net, n_channels=2, window=WINDOW)
    with open_pipeline(model, image, CPU) as pipeline, pytest.raises(ModelError, match=message):
        pipeline.logits(pipeline.clean, pipeline.inner)


def test_a_classifier_has_logits_of_one_voxel() -> None:
    image = volume(Grid((5, 7), np.diag([0.7, 1.1, 1])), n_channels=2)
    net = Pooled(SmallNet(2, 2, 3))
    model = wrap(net, classes=list("abc"), channels=list("xy"), kind="classification", rank=2)
    with open_pipeline(model, image, CPU) as pipeline:
        found = pipeline.logits(pipeline.clean, pipeline.inner)
        assert pipeline.inner == Box((0, 0), (1, 1))
    wanted = net(torch.from_numpy(image.data)[None])[0].detach()
    torch.testing.assert_close(found, wanted.reshape(3, 1, 1))


def test_without_a_window_the_whole_image_is_one(image: Volume) -> None:
    model = wrap(SmallNet(3, 2, 3), classes=list("abc"), channels=list("xy"), rank=3)
    assert model.info.window is None
    with open_pipeline(model, image, CPU) as pipeline:
        assert len(pipeline.plan) == 1
        assert pipeline.plan.settings.size == SHAPE


# -- cotangents -----------------------------------------------------------------------------
def test_dense_and_summed_cotangents_crop_like_arrays() -> None:
    rng = np.random.default_rng(0)
    whole = Box((0, 0), (6, 8))
    boxes = [Box((1, 2), (4, 5)), Box((3, 0), (6, 4))]
    parts = [torch.from_numpy(rng.normal(size=(2, *box.shape))) for box in boxes]
    dense = [DenseCotangent(v, b) for v, b in zip(parts, boxes, strict=True)]
    empty = DenseCotangent(torch.zeros(2, 1, 1), Box((0, 0), (1, 1)))
    total = SumCotangent([(2.0, dense[0]), (-1.0, dense[1]), (5.0, empty)], 2)
    wanted = torch.zeros(2, *whole.shape, dtype=torch.float64)
    for factor, values, box in zip((2.0, -1.0), parts, boxes, strict=True):
        wanted[(slice(None), *box.slices)] += factor * values
    torch.testing.assert_close(total.crop(whole), wanted)
    assert total.support == Box((1, 0), (6, 5))
    assert empty.support is None
    assert total.touches(Box((5, 3), (6, 8)))
    assert not total.touches(Box((0, 5), (6, 8)))
    assert not total.touches(Box((0, 0), (1, 8)))
    inside = Box((2, 1), (5, 6))
    torch.testing.assert_close(total.crop(inside), wanted[(slice(None), *inside.slices)])


def test_a_hole_in_a_cotangent_is_not_touched() -> None:
    values = torch.zeros(1, 4, 4)
    values[0, 0, 0] = values[0, 3, 3] = 1
    cotangent = DenseCotangent(values, Box((1, 1), (5, 5)))
    assert cotangent.touches(Box((1, 1), (2, 2)))
    assert not cotangent.touches(Box((2, 2), (4, 4)))


def test_a_sum_of_nothing_has_no_support() -> None:
    assert SumCotangent([], 2).support is None
    assert not SumCotangent([], 2).touches(Box((0, 0), (9, 9)))


# -- batches --------------------------------------------------------------------------------
def smooth(net: nn.Module, image: Volume, compute: Compute, seed: int = 0) -> Explanation:
    targets = [
        ClassTarget("class_1", Everywhere(), score="probability"),
        ClassTarget("class_2", Everywhere()),
    ]
    model = describe(net, n_channels=2, window=WINDOW)
    return explain(model, image, targets, SmoothGrad(n=3), seed=seed, compute=compute)


def maps(result: Explanation) -> np.ndarray:
    return np.stack([a.values for a in result.attributions.values()])


@pytest.mark.parametrize("batch_size", [2, 5, None])
def test_the_batch_size_does_not_matter(image: Volume, batch_size: int | None) -> None:
    net = SmallNet(3, 2, 3)
    one = maps(smooth(net, image, Compute("cpu", batch_size=1)))
    other = maps(smooth(net, image, Compute("cpu", batch_size=batch_size)))
    np.testing.assert_allclose(other, one, rtol=0, atol=1e-6 * np.abs(one).max())


def test_the_same_seed_gives_the_same_bits_and_another_does_not(image: Volume) -> None:
    net = SmallNet(3, 2, 3)
    one, again = (maps(smooth(net, image, CPU, seed=3)) for _ in range(2))
    assert np.array_equal(one, again)
    other = maps(smooth(net, image, CPU, seed=4))
    assert np.abs(one[0] - other[0]).max() > 1e-3 * np.abs(one[0]).max()


def test_noise_follows_the_image_and_not_its_name(image: Volume) -> None:
    net = SmallNet(3, 2, 3)
    renamed = Volume(image.data, image.grid, name="another")
    assert np.array_equal(maps(smooth(net, image, CPU)), maps(smooth(net, renamed, CPU)))


def test_out_of_memory_halves_the_batch_and_says_so(image: Volume) -> None:
    wanted = maps(smooth(SmallNet(3, 2, 3), image, Compute("cpu", batch_size=1)))
    net = OutOfMemory(SmallNet(3, 2, 3), limit=2)
    with pytest.warns(RuntimeWarning, match="out of memory with .* windows in a pass") as said:
        result = smooth(net, image, Compute("cpu", batch_size=8))
    assert [str(w.message).rpartition(" ")[2] for w in said] == ["4", "2"]
    np.testing.assert_allclose(maps(result), wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
    quiet = smooth(SmallNet(3, 2, 3), image, Compute("cpu", batch_size=1))
    assert result.provenance.cost.n_forward == quiet.provenance.cost.n_forward
    assert result.provenance.cost.n_backward == quiet.provenance.cost.n_backward


class OutOfMemoryWithGraph(OutOfMemory):
    """Forward passes fit; a batch with a graph does not."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return super().forward(windows) if windows.requires_grad else self.inner(windows)


def test_out_of_memory_while_the_gradient_is_taken(image: Volume) -> None:
    wanted = maps(smooth(SmallNet(3, 2, 3), image, Compute("cpu", batch_size=1)))
    net = OutOfMemoryWithGraph(SmallNet(3, 2, 3), limit=1)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        found = maps(smooth(net, image, Compute("cpu", batch_size=3)))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


def test_one_window_that_does_not_fit_is_an_error(image: Volume) -> None:
    net = OutOfMemory(SmallNet(3, 2, 3), limit=0)
    message = r"one window of \(4, 5, 6\) does not fit in the memory of cpu"
    with pytest.raises(ModelError, match=message):
        smooth(net, image, Compute("cpu", batch_size=1))


def test_the_automatic_batch_fits_the_free_memory(
    image: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = describe(SmallNet(3, 2, 3), n_channels=2, window=WINDOW)
    with open_pipeline(model, image, Compute("cpu")) as pipeline:
        assert pipeline.batch_size(with_graph=True) == 1  # not measured yet
        pipeline.one_window()
        graph = pipeline.graph_bytes
        # input, hidden before and after tanh, logits: no less than that is kept for backward
        assert graph is not None
        assert graph >= 4 * 4 * 5 * 6 * (2 + 4 + 3)
        monkeypatch.setattr(
            "voxplain.inference.pipeline.free_memory_bytes", lambda device: 4 * graph * 3 + 1
        )
        assert pipeline.batch_size(with_graph=True) == 3


def test_deep_supervision_takes_the_first(image: Volume) -> None:
    W = np.array([[1.0, -2.0], [0.5, 3.0], [0.25, 1.5]])
    plain, deep = (maps(smooth(net, image, CPU)) for net in (Linear(W), DeepSupervision(Linear(W))))
    assert np.array_equal(plain, deep)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_autocast_is_near(image: Volume, precision: str) -> None:
    wanted = maps(smooth(SmallNet(3, 2, 3), image, CPU))
    compute = Compute("cpu", batch_size=2, precision=precision)  # type: ignore[arg-type]
    found = maps(smooth(SmallNet(3, 2, 3), image, compute))
    error = np.abs(found - wanted).max() / np.abs(wanted).max()
    assert 1e-6 < error < 0.05


def test_channels_last_is_equal(image: Volume) -> None:
    wanted = maps(smooth(SmallNet(3, 2, 3), image, CPU))
    compute = Compute("cpu", batch_size=2, memory_format="channels_last")
    found = maps(smooth(SmallNet(3, 2, 3), image, compute))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())


# -- the volume's edge ----------------------------------------------------------------------
def test_padding_is_the_odd_voxel_at_the_end_and_has_its_value(image: Volume) -> None:
    window = WindowSettings((4, 10, 6), pad_value=0.25)
    model = describe(SmallNet(3, 2, 3), n_channels=2, window=window)
    with open_pipeline(model, image, CPU) as pipeline:
        assert pipeline.plan.pad_before == WindowPlan(SHAPE, window).pad_before == (0, 1, 0)
        whole = pipeline.clean(Box.whole(pipeline.plan.padded_shape)).numpy()
    assert np.array_equal(whole[:, :, 1:8], image.data)
    assert (whole[:, :, [0, 8, 9]] == 0.25).all()


def test_the_image_is_never_written_to(image: Volume) -> None:
    before = image.data.copy()

    class Overwriting(nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            logits = windows.sum(1, keepdim=True).expand(-1, 3, -1, -1, -1) * 1.0
            with torch.no_grad():
                windows.data.zero_()
            return logits

    smooth(Overwriting(), image, CPU)
    assert np.array_equal(image.data, before)


def test_small_cotangents_survive_half_precision(image: Volume) -> None:
    small = torch.full((1, 4, 4), 3e-9)
    model = describe(SmallNet(3, 2, 3), n_channels=2, window=WINDOW)
    with open_pipeline(model, image, CPU) as pipeline:
        assert pipeline.loss_scale(small) == 1.0
    with open_pipeline(model, image, Compute("cpu", precision="fp16")) as pipeline:
        scale = pipeline.loss_scale(small)
        assert pipeline.loss_scale(torch.zeros(1, 4, 4)) == 1.0
    assert 1.0 <= float(small.max()) * scale < 2.0
    assert np.log2(scale) == round(np.log2(scale))
