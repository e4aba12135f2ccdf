"""Window positions and weights against MONAI itself and against nnU-Net's stated rules."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from monai.data.utils import compute_importance_map
from monai.inferers import sliding_window_inference

from voxplain.errors import ModelError
from voxplain.space import Box, WindowPlan, WindowSettings


def stitch(plan: WindowPlan, image: np.ndarray, predict) -> np.ndarray:
    """Blend window by window, straight from the plan's public parts."""
    padding = [
        (before, padded - n - before)
        for before, padded, n in zip(plan.pad_before, plan.padded_shape, plan.shape, strict=True)
    ]
    padded = np.pad(image, padding, constant_values=plan.settings.pad_value)
    total = np.zeros(plan.padded_shape)
    for index in range(len(plan)):
        at = plan.box(index).slices
        total[at] += plan.weight * predict(padded[at], index)
    total /= plan.normaliser(Box.whole(plan.padded_shape))
    return total[plan.inner().slices]


@pytest.mark.parametrize("blend", ["constant", "gaussian"])
@pytest.mark.parametrize(
    ("shape", "size", "overlap"),
    [
        ((13, 22), (6, 8), 0.25),
        ((13, 22), (6, 8), 0.0),
        ((11, 17, 9), (4, 8, 6), 0.5),
        ((11, 17, 9), (4, 4, 9), 0.7),
        ((5, 7, 11), (8, 4, 14), 0.5),  # smaller than the window, padded by an odd number
        ((3, 4), (8, 9), 0.25),
        ((5, 7, 11), (1, 1, 1), 0.9),
    ],
)
def test_stitching_equals_monai(shape, size, overlap, blend):
    settings = WindowSettings(size, overlap, blend, pad_value=-3.0)
    plan = WindowPlan(shape, settings)
    rng = np.random.default_rng(0)
    image = rng.normal(size=shape)
    pattern = rng.normal(size=size)  # an answer that depends on the place in the window
    gains = rng.normal(size=len(plan))  # and on which window it is
    count = itertools.count()

    def network(batch: torch.Tensor) -> torch.Tensor:
        return batch * torch.from_numpy(pattern) * gains[next(count)]

    expected = sliding_window_inference(
        torch.from_numpy(image)[None, None],
        size,
        1,
        network,
        overlap,
        mode=blend,
        cval=-3.0,
    )
    assert next(count) == len(plan)
    got = stitch(plan, image, lambda window, index: window * pattern * gains[index])
    # MONAI's weights are float32: its exp may round the last bit otherwise than numpy's.
    np.testing.assert_allclose(got, expected[0, 0].numpy(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("size", [(1, 5), (64, 48), (17, 32, 20), (2, 3, 4)])
def test_monai_weight(size):
    expected = compute_importance_map(size, mode="gaussian", dtype=torch.float64).numpy()
    weight = WindowPlan(size, WindowSettings(size)).weight
    np.testing.assert_allclose(weight, expected, rtol=3e-7)
    assert weight.dtype == np.float64


def test_nnunet_positions_stated_example():
    # 110 voxels, patch 64, step 0.5: three steps at 0, 23, 46 (stated in nnU-Net's source).
    plan = WindowPlan((110, 64), WindowSettings((64, 64), 0.5, scheme="nnunet"))
    assert plan.starts == ((0, 0), (23, 0), (46, 0))


def test_nnunet_positions_differ_from_monai():
    arguments = ((100, 30), (40, 20))
    nnunet = WindowPlan(arguments[0], WindowSettings(arguments[1], 0.5, scheme="nnunet"))
    monai = WindowPlan(arguments[0], WindowSettings(arguments[1], 0.5, scheme="monai"))
    assert {s[0] for s in nnunet.starts} == {0, 20, 40, 60}
    assert {s[1] for s in nnunet.starts} == {0, 10}
    assert nnunet.starts == monai.starts  # where the stride divides evenly
    # ceil((101 - 40) / 20) + 1 = 5 windows, 61 / 4 = 15.25 voxels apart
    nnunet = WindowPlan((101, 20), WindowSettings((40, 20), 0.5, scheme="nnunet"))
    assert [s[0] for s in nnunet.starts] == [0, 15, 30, 46, 61]
    monai = WindowPlan((101, 20), WindowSettings((40, 20), 0.5, scheme="monai"))
    assert [s[0] for s in monai.starts] == [0, 20, 40, 60, 61]


def test_nnunet_weight():
    size = (16, 24, 20)
    weight = WindowPlan(size, WindowSettings(size, scheme="nnunet")).weight
    centre = tuple(n // 2 for n in size)
    assert weight[centre] == weight.max() == 10.0
    assert (weight > 0).all()
    assert weight.min() == np.float16(weight.min())
    # sigma = size / 8: one sigma from the centre along an axis, exp(-1/2) of the maximum
    assert weight[8 - 2, 12, 10] == pytest.approx(10 * np.exp(-0.5), rel=1e-3)
    assert weight[8, 12 + 3, 10] == pytest.approx(10 * np.exp(-0.5), rel=1e-3)
    # even size: the centre is size // 2, so the weight is not symmetric
    assert weight[0, 12, 10] < weight[-1, 12, 10]
    # the far corner vanishes in float16 and takes the smallest value that does not
    assert weight[0, 0, 0] == weight.min() == weight[weight > 0].min()


def test_constant_weight_is_one():
    for scheme in ("monai", "nnunet"):
        plan = WindowPlan((9, 9), WindowSettings((4, 5), blend="constant", scheme=scheme))
        np.testing.assert_array_equal(plan.weight, np.ones((4, 5)))


def test_small_volume_is_padded_evenly():
    plan = WindowPlan((5, 7, 11), WindowSettings((8, 4, 14)))
    assert plan.padded_shape == (8, 7, 14)
    assert plan.pad_before == (1, 0, 1)  # 3 = 1 + 2: the odd voxel at the end
    assert plan.inner() == Box((1, 0, 1), (6, 7, 12))


def test_weight_cannot_be_changed():
    plan = WindowPlan((5, 7), WindowSettings((4, 4)))
    with pytest.raises(ValueError, match="read-only"):
        plan.weight[0, 0] = 2.0


def test_one_small_box_of_a_huge_volume_is_cheap():
    plan = WindowPlan((4000, 3000, 3000), WindowSettings((160, 160, 160), 0.5))
    box = Box((1000, 1000, 1000), (1016, 1016, 1016))
    assert len(plan) > 60000
    assert plan.normaliser(box).shape == (16, 16, 16)
    assert all(plan.box(i).intersect(box) for i in plan.touching(box))


def test_an_empty_or_far_box_touches_nothing():
    plan = WindowPlan((9, 9), WindowSettings((4, 5)))
    assert plan.touching(Box((3, 3), (3, 5))) == []
    assert plan.touching(Box((20, 0), (30, 9))) == []
    np.testing.assert_array_equal(plan.normaliser(Box((20, 0), (22, 9))), np.zeros((2, 9)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": (8,)}, "size is 2 or 3 whole numbers"),
        ({"size": (8, 0)}, "at least 1 voxel"),
        ({"size": (8, 2.5)}, "whole numbers"),
        ({"size": (8, 8), "overlap": 1.0}, "less than 1, got 1.0"),
        ({"size": (8, 8), "overlap": float("nan")}, "less than 1, got nan"),
        ({"size": (8, 8), "overlap": -0.1}, "at least 0"),
        ({"size": (8, 8), "blend": "linear"}, "blend is one of constant, gaussian, got 'linear'"),
        ({"size": (8, 8), "scheme": "torch"}, "scheme is one of monai, nnunet, got 'torch'"),
        ({"size": (8, 8), "pad_value": float("inf")}, "pad_value is a finite intensity"),
    ],
)
def test_settings_out_of_range(arguments, message):
    with pytest.raises(ModelError, match=message):
        WindowSettings(**arguments)


def test_every_fault_is_named_at_once():
    with pytest.raises(ModelError, match=r"size.*overlap.*blend"):
        WindowSettings((0, 4), 2.0, "linear")


def test_ranks_must_agree():
    with pytest.raises(ModelError, match=r"window of 2 axes .* volume of 3 axes"):
        WindowPlan((5, 7, 11), WindowSettings((4, 4)))


def test_nnunet_visits_each_slice_once_with_a_window_of_one_voxel() -> None:
    settings = WindowSettings((1, 4, 6), overlap=0.5, scheme="nnunet")
    plan = WindowPlan((7, 5, 11), settings)
    flat = WindowPlan((5, 11), WindowSettings((4, 6), overlap=0.5, scheme="nnunet"))
    assert plan.starts == tuple((z, *start) for z in range(7) for start in flat.starts)
    np.testing.assert_array_equal(plan.weight[0], flat.weight)
