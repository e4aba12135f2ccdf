"""Terms of the losses against numbers by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter, uniform_filter

from voxplain.counterfactual.draw_seed import step_generator
from voxplain.counterfactual.inpaint_mask import one_cycle, random_holes
from voxplain.counterfactual.losses import (
    _blurred,
    hinge_fake,
    hinge_real,
    jittered,
    total_variation,
    turned,
)
from voxplain.counterfactual.unet import smoothed


def test_turned_is_the_cross_entropy_of_normal_moved_by_the_margin() -> None:
    z = torch.tensor([-3.0, 0.0, 2.0])
    wanted = np.mean([math.log1p(math.exp(v + 1)) for v in (-3.0, 0.0, 2.0)])
    assert float(turned(z, 1.0)) == pytest.approx(wanted, rel=1e-6)
    target = torch.zeros(3)
    entropy = torch.nn.functional.binary_cross_entropy_with_logits(z, target)
    assert float(turned(z, 0.0)) == pytest.approx(float(entropy), rel=1e-6)


def test_turned_pulls_at_confident_abnormals_with_full_strength() -> None:
    z = torch.tensor([60.0], requires_grad=True)
    (slope,) = torch.autograd.grad(turned(z, 1.0), z)
    assert float(slope) == pytest.approx(1.0)


def test_total_variation_counts_the_edges_of_a_square() -> None:
    mask = torch.zeros(1, 1, 10, 12)
    mask[..., 2:5, 3:7] = 1  # 3 rows, 4 columns
    along_columns, along_rows = 2 * 3 / (10 * 11), 2 * 4 / (9 * 12)
    assert float(total_variation(mask)) == pytest.approx(along_columns + along_rows)


def test_hinge_terms_vanish_beyond_the_margin() -> None:
    scores = torch.tensor([2.0, 0.5, -1.0])
    assert float(hinge_real(scores)) == pytest.approx((0 + 0.5 + 2) / 3)
    assert float(hinge_fake(scores)) == pytest.approx((3 + 1.5 + 0) / 3)


def test_blur_is_that_of_scipy_and_keeps_constants() -> None:
    rng = np.random.default_rng(5)
    image = rng.normal(size=(17, 23)).astype(np.float32)
    ours = _blurred(torch.from_numpy(image)[None, None], 1.2)[0, 0].numpy()
    theirs = gaussian_filter(image.astype(np.float64), 1.2, mode="nearest", radius=4)
    np.testing.assert_allclose(ours, theirs, atol=1e-5)
    flat = _blurred(torch.full((1, 1, 9, 9), -0.3), 2.0)
    np.testing.assert_allclose(flat.numpy(), -0.3, atol=1e-6)


def test_jitter_is_the_same_for_the_same_step_and_nothing_at_zero() -> None:
    images = torch.zeros(3, 1, 8, 8)
    one = jittered(images, 0.1, 0.7, step_generator(1, "jitter", 4))
    again = jittered(images, 0.1, 0.7, step_generator(1, "jitter", 4))
    other = jittered(images, 0.1, 0.7, step_generator(1, "jitter", 5))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    assert torch.equal(jittered(images, 0.0, 0.0, step_generator(1, "jitter", 4)), images)


def test_streams_of_one_step_draw_apart() -> None:
    a = torch.randn(5, generator=step_generator(1, "jitter", 4))
    b = torch.randn(5, generator=step_generator(1, "holes", 4))
    assert not torch.equal(a, b)


@pytest.mark.parametrize("pixels", [1, 2, 3, 5])
def test_smoothing_is_a_box_mean(pixels: int) -> None:
    values = np.random.default_rng(2).random((1, 1, 12, 10)).astype(np.float32)
    ours = smoothed(torch.from_numpy(values), pixels).numpy()
    origin = -1 if pixels % 2 == 0 else 0
    theirs = uniform_filter(values[0, 0].astype(np.float64), pixels, mode="nearest", origin=origin)
    np.testing.assert_allclose(ours[0, 0], theirs, atol=1e-6)


def test_holes_cover_the_share_that_was_drawn() -> None:
    holes = random_holes(40, (64, 48), (0.1, 0.3), step_generator(0, "holes", 0))
    shares = (holes > 0.5).float().mean(dim=(1, 2, 3))
    assert holes.shape == (40, 1, 64, 48)
    assert float(shares.min()) > 0.09
    assert float(shares.max()) < 0.31
    assert float(shares.std()) > 0.02


def test_one_cycle_rises_to_one_and_falls_to_nothing() -> None:
    rates = np.array([one_cycle(i, 200) for i in range(200)])
    assert rates.argmax() == 60
    assert rates[60] == pytest.approx(1.0)
    assert rates[0] < 0.01
    assert rates[-1] < 0.02
    assert (np.diff(rates[:60]) > 0).all()
    assert (np.diff(rates[60:]) < 0).all()
