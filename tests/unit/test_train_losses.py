from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, one_hot

from voxplain.train.losses import (
    NormalisedDiceFocalLoss,
    NormalisedDiceLoss,
    build_loss,
)
from voxplain.train.recipe import LossRecipe

SURE = 60.0


def logits_of(labels: torch.Tensor, n_classes: int = 2) -> torch.Tensor:
    """Logits of a network that is sure of these labels (batch, 1, n)."""
    return one_hot(labels[:, 0].long(), n_classes).movedim(-1, 1).double() * SURE


def line(n_true: int, n_both: int, n_wrong: int, n: int = 1000) -> tuple[torch.Tensor, ...]:
    """Truth with n_true voxels, a prediction with n_both of them and n_wrong others."""
    truth, found = torch.zeros(1, 1, n), torch.zeros(1, 1, n)
    truth[..., :n_true] = 1
    found[..., :n_both] = 1
    found[..., n - n_wrong :] = found[..., n - n_wrong :] + 1 if n_wrong else found[..., n:]
    return truth, found


@pytest.mark.parametrize(
    ("n_true", "n_both", "n_wrong", "load"),
    [(10, 7, 5, 0.001), (100, 60, 30, 0.001), (5, 5, 40, 0.02), (300, 1, 0, 0.3)],
)
def test_normalised_dice_is_its_formula(n_true, n_both, n_wrong, load):
    truth, found = line(n_true, n_both, n_wrong)
    h = n_true / (1000 - n_true)
    kappa = h * (1 / load - 1)
    expected = 2 * n_both / (2 * n_both + kappa * n_wrong + (n_true - n_both))
    loss = NormalisedDiceLoss(load, smooth=1e-12)(logits_of(found), truth)
    assert float(loss) == pytest.approx(1 - expected, abs=1e-6)


def test_at_the_reference_load_it_is_dice():
    truth, found = line(10, 7, 5)
    loss = NormalisedDiceLoss(10 / 1000, smooth=1e-12)(logits_of(found), truth)
    assert float(loss) == pytest.approx(1 - 14 / (14 + 5 + 3), abs=1e-6)


def test_a_small_load_is_punished_less_for_false_positives_than_by_dice():
    truth, found = line(1, 1, 3)
    plain = 1 - 2 / (2 + 3)
    assert float(NormalisedDiceLoss(0.1)(logits_of(found), truth)) < plain


def test_an_image_without_the_class_has_plain_false_positives():
    truth, found = line(0, 0, 4)
    loss = NormalisedDiceLoss(0.001, smooth=1.0)(logits_of(found), truth)
    assert float(loss) == pytest.approx(1 - 1 / (4 + 1), abs=1e-6)
    assert float(NormalisedDiceLoss()(logits_of(truth), truth)) == pytest.approx(0, abs=1e-6)


def test_it_is_the_mean_over_images_and_classes_but_the_background():
    truth = torch.tensor([[[0, 1, 1, 2, 0, 0]], [[0, 0, 2, 2, 2, 1]]])
    found = torch.tensor([[[0, 1, 2, 2, 0, 0]], [[1, 0, 2, 2, 0, 1]]])
    loss = NormalisedDiceLoss(0.2, smooth=1e-12)
    each = [
        float(loss(logits_of((found[[i]] == c).long()), (truth[[i]] == c).long()))
        for i in (0, 1)
        for c in (1, 2)
    ]
    together = float(loss(logits_of(found, 3), truth))
    assert together == pytest.approx(sum(each) / 4, abs=1e-6)


@given(st.integers(0, 2**16))
def test_gradients_are_finite_also_without_the_class(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 3, 4, 5, generator=generator, requires_grad=True)
    labels = torch.randint(0, 3, (2, 1, 3, 4, 5), generator=generator)
    labels[0] = 0
    loss = build_loss(LossRecipe(name="ndice_focal"), ())(logits, labels)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.isfinite(gradient).all()
    assert float(gradient.abs().max()) > 0


def test_focal_is_its_formula_and_without_gamma_the_cross_entropy():
    logits = torch.randn(2, 3, 4, 5, 6, dtype=torch.float64)
    labels = torch.randint(0, 3, (2, 1, 4, 5, 6))
    dice = float(NormalisedDiceLoss(0.01, 1e-5)(logits, labels))
    log_p = logits.log_softmax(1).gather(1, labels)
    for gamma in (0.0, 2.0):
        loss = float(NormalisedDiceFocalLoss(0.01, 1e-5, gamma)(logits, labels))
        expected = float((-((1 - log_p.exp()) ** gamma) * log_p).mean())
        assert loss - dice == pytest.approx(expected, rel=1e-4)
        if gamma == 0:
            assert expected == pytest.approx(float(cross_entropy(logits, labels[:, 0])))


def test_dice_ce_of_a_sure_and_right_network_is_nothing():
    labels = torch.randint(0, 3, (2, 1, 4, 5, 6))
    loss = build_loss(LossRecipe(over_batch=True, smooth=1.0), ())
    assert float(loss(logits_of(labels, 3), labels)) == pytest.approx(0, abs=1e-5)
    assert float(loss(logits_of((labels + 1) % 3, 3), labels)) > SURE / 2


def test_dice_ce_is_that_of_monai():
    from monai.losses import DiceCELoss

    logits, labels = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 1, 4, 5, 6))
    for over_batch in (False, True):
        ours = build_loss(LossRecipe(over_batch=over_batch), ())
        theirs = DiceCELoss(softmax=True, to_onehot_y=True, batch=over_batch)
        assert float(ours(logits, labels)) == pytest.approx(float(theirs(logits, labels)))


def test_rare_classes_weigh_more_in_the_cross_entropy_alone():
    logits, labels = torch.randn(2, 3, 4, 5, 6), torch.randint(0, 3, (2, 1, 4, 5, 6))
    plain = build_loss(LossRecipe(), ())
    weighted = build_loss(LossRecipe(by_rarity=True), [400, 100, 0])
    weights = torch.tensor([1 / 20, 1 / 10, 1.0])
    weights = weights / weights.mean()
    wanted = cross_entropy(logits, labels[:, 0], weights) - cross_entropy(logits, labels[:, 0])
    assert float(weighted(logits, labels) - plain(logits, labels)) == pytest.approx(float(wanted))
