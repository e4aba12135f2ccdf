"""Published losses: numbers by hand, and against the published, clamped form and MONAI."""

from __future__ import annotations

import math
from typing import Literal

import pytest
import torch
from monai.losses import PatchAdversarialLoss
from torch.nn import functional as F  # noqa: N812

from voxplain.counterfactual.paper_losses import (
    change_variation,
    discriminator_opposition,
    divergence,
    generator_opposition,
    region_distance,
)

KINDS: tuple[Literal["bce", "hinge"], ...] = ("bce", "hinge")


def published_divergence(target: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
    """The paper's: both probabilities are clamped."""
    c, q = (p.clamp(1e-5, 1 - 1e-5) for p in (target, logit.sigmoid()))
    return (c * (c / q).log() + (1 - c) * ((1 - c) / (1 - q)).log()).mean()


def test_divergence_by_hand() -> None:
    # c = 1/4 against q = 1/2: log 2 − H(1/4)
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    one = divergence(torch.tensor([0.25]), torch.tensor([0.0]))
    assert float(one) == pytest.approx(math.log(2) - entropy, abs=1e-7)
    # target 0: −log(1 − q) = softplus(z); target 1: softplus(−z)
    both = divergence(torch.tensor([0.0, 1.0]), torch.tensor([3.0, 3.0]))
    assert float(both) == pytest.approx((math.log1p(math.e**3) + math.log1p(math.e**-3)) / 2)
    logit = torch.tensor([-4.0, 0.5, 6.0], dtype=torch.float64)
    assert float(divergence(logit.sigmoid(), logit)) == pytest.approx(0, abs=1e-12)


def test_divergence_is_the_published_one_inside_the_clamps() -> None:
    draws = torch.Generator().manual_seed(3)
    logit = 16 * torch.rand(50, generator=draws, dtype=torch.float64) - 8
    target = 0.001 + 0.998 * torch.rand(50, generator=draws, dtype=torch.float64)
    assert float(divergence(target, logit)) == pytest.approx(
        float(published_divergence(target, logit)), rel=1e-12
    )


def test_divergence_pulls_where_the_published_one_is_dead() -> None:
    logit = torch.tensor([50.0, 14.0, -50.0, 0.0], requires_grad=True)
    target = torch.tensor([1e-6, 1e-6, 0.5, 1e-6])
    (gradient,) = torch.autograd.grad(divergence(target, logit) * 4, logit)
    expected = torch.sigmoid(logit.detach()) - target
    torch.testing.assert_close(gradient, expected, atol=1e-6, rtol=0)
    (published,) = torch.autograd.grad(published_divergence(target, logit), logit)
    assert published[:3].tolist() == [0, 0, 0]
    assert float(published[3]) > 0.1
    sure = divergence(target[:1], logit.detach()[:1])
    assert float(sure) == pytest.approx(50, rel=1e-5)


def test_each_region_counts_alike() -> None:
    images = torch.zeros(2, 1, 4, 4)
    organ = torch.zeros_like(images)
    organ[0, 0, 0, :2] = 1  # 2 of 16 pixels; the second picture has no organ
    others = torch.full_like(images, 0.1)
    others[0, 0, 0, 0] = -0.5
    # first: rest 0.1, organ (0.5 + 0.1)/2; second: rest 0.1, organ 0
    assert float(region_distance(images, others, organ)) == pytest.approx((0.1 + 0.3 + 0.1) / 2)
    everywhere = torch.ones_like(images)
    assert float(region_distance(images, others, everywhere)) == pytest.approx(
        float(F.l1_loss(others, images))
    )


def test_variation_of_the_change_by_hand() -> None:
    images = torch.zeros(2, 1, 2, 3)
    repairs = torch.zeros_like(images)
    repairs[0, 0, 0, 1] = -0.02  # d = 2.55 in one pixel of two rows and three columns
    # columns: 2 of 8 differences are 2.55; rows: 1 of 6
    expected = 2.55**2 * (2 / 8 + 1 / 6)
    assert float(change_variation(images, repairs)) == pytest.approx(expected, rel=1e-6)
    assert float(change_variation(images, images + 0.3)) == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_adversarial_terms_against_monai(kind: Literal["bce", "hinge"]) -> None:
    draws = torch.Generator().manual_seed(1)
    real, fake = 2 * torch.randn(2, 7, 1, generator=draws)
    oracle = PatchAdversarialLoss(criterion=kind)
    # MONAI's hinge takes tanh of the scores first, and its generator's is 1 − mean, not −mean
    scores = {"bce": (real, fake), "hinge": (real.tanh(), fake.tanh())}[kind]
    half = (
        oracle(real, target_is_real=True, for_discriminator=True)
        + oracle(fake, target_is_real=False, for_discriminator=True)
    ) / 2
    ours = float(discriminator_opposition(kind, *scores))
    assert ours == pytest.approx(float(half), rel=1e-5)
    turned = oracle(fake, target_is_real=True, for_discriminator=False)
    assert float(generator_opposition(kind, scores[1])) == pytest.approx(
        float(turned) - (kind == "hinge"), rel=1e-5
    )


def test_adversarial_terms_by_hand() -> None:
    real, fake = torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 1.0])
    assert float(discriminator_opposition("hinge", real, fake)) == (0.5 + 1.0) / 2
    assert float(generator_opposition("hinge", fake)) == 1.0
    zero = torch.zeros(3)
    assert float(discriminator_opposition("bce", zero, zero)) == pytest.approx(math.log(2))
    assert float(generator_opposition("bce", zero)) == pytest.approx(math.log(2))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_at_large_logits(kind: Literal["bce", "hinge"]) -> None:
    score = torch.tensor([50.0, -50.0], requires_grad=True)
    loss = (
        generator_opposition(kind, score)
        + discriminator_opposition(kind, score, score)
        + divergence(torch.tensor([0.0, 1.0]), score)
    )
    (gradient,) = torch.autograd.grad(loss, score)
    assert loss.isfinite()
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0.4
