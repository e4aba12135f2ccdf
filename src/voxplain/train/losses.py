"""What a training makes small."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from monai.losses import DiceLoss, FocalLoss
from torch import nn

from voxplain.train.recipe import LossRecipe


class NormalisedDiceLoss(nn.Module):
    """1 - normalised Dice of the softmax, mean over images and classes but the background.

    nDSC = 2 TP / (2 TP + κ FP + FN) with κ = h (1/r - 1), where h = (voxels of the class) /
    (voxels outside of it) in the image and r the reference load. TP = Σ p g, FP = Σ p (1 - g),
    FN = Σ (1 - p) g over the probabilities p and the truth g.
    An image whose load, voxels of the class over all voxels, is r has κ = 1 and plain Dice; an
    image with a smaller load is punished less for its false positives, so that Dice no longer
    grows with the load alone.

    Parameters
    ----------
    reference_load
        r, above 0 and below 1.
    smooth
        Added to numerator and denominator.

    Notes
    -----
    Differs from the paper, which defines it for decided voxels: probabilities take their place.
    An image without the class has κ = 1 instead of 0, so that false positives count; so has one
    that is nothing but the class, where h is not defined.

    References
    ----------
    Raina et al., Tackling bias in the Dice similarity coefficient: introducing nDSC for white
    matter lesion segmentation, ISBI 2023.
    """

    def __init__(self, reference_load: float = 0.001, smooth: float = 1e-5) -> None:
        super().__init__()
        self.reference_load = reference_load
        self.smooth = smooth

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits (batch, classes, *shape) against labels (batch, 1, *shape)."""
        n_classes = logits.shape[1]
        probability = logits.float().softmax(1)[:, 1:].flatten(2)
        truth = nn.functional.one_hot(labels.flatten(1).long(), n_classes)[..., 1:]
        truth = truth.transpose(1, 2).to(probability.dtype)
        n_true, n_voxels = truth.sum(2), truth.shape[2]
        has_both = (n_true > 0) & (n_true < n_voxels)
        ratio = n_true / (n_voxels - n_true).clamp(min=1)
        kappa = torch.where(has_both, ratio * (1 / self.reference_load - 1), 1.0)
        true_positive = (probability * truth).sum(2)
        false_positive = probability.sum(2) - true_positive
        false_negative = n_true - true_positive
        below = 2 * true_positive + kappa * false_positive + false_negative
        return 1 - ((2 * true_positive + self.smooth) / (below + self.smooth)).mean()


class NormalisedDiceFocalLoss(nn.Module):
    """`NormalisedDiceLoss` + the focal loss -(1 - p)^γ log p of the true class's softmax p.

    Parameters
    ----------
    reference_load, smooth
        Of normalised Dice.
    gamma
        γ, 0 or more; 0 is the cross entropy.
    """

    def __init__(self, reference_load: float, smooth: float, gamma: float) -> None:
        super().__init__()
        self.dice = NormalisedDiceLoss(reference_load, smooth)
        self.focal = FocalLoss(to_onehot_y=True, use_softmax=True, gamma=gamma, reduction="none")

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits (batch, classes, *shape) against labels (batch, 1, *shape)."""
        focal = self.focal(logits.float(), labels).sum(1).mean()
        return torch.as_tensor(self.dice(logits, labels) + focal)


class DiceCrossEntropyLoss(nn.Module):
    """Dice loss of the softmax, mean over all classes, + cross entropy.

    Parameters
    ----------
    over_batch
        Dice over the whole batch at once.
    smooth
        Added to numerator and denominator of Dice.
    weights
        Weight of each class in the cross entropy; None: all alike.
    """

    def __init__(self, over_batch: bool, smooth: float, weights: torch.Tensor | None) -> None:
        super().__init__()
        self.dice = DiceLoss(
            softmax=True, to_onehot_y=True, batch=over_batch, smooth_nr=smooth, smooth_dr=smooth
        )
        self.cross_entropy = nn.CrossEntropyLoss(weights)

    def forward(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Loss of logits (batch, classes, *shape) against labels (batch, 1, *shape)."""
        cross_entropy = self.cross_entropy(logits, labels[:, 0].long())
        return torch.as_tensor(self.dice(logits, labels) + cross_entropy)


def build_loss(recipe: LossRecipe, counts: Sequence[int]) -> nn.Module:
    """Build the loss of a recipe; it is called with logits and labels (batch, 1, *shape).

    Parameters
    ----------
    recipe
        Which.
    counts
        Voxels of each class, background first, in all training cases.
    """
    if recipe.name == "ndice_focal":
        return NormalisedDiceFocalLoss(recipe.reference_load, recipe.smooth, recipe.gamma)
    weights = None
    if recipe.by_rarity:
        weights = torch.tensor(counts, dtype=torch.float64).clamp(min=1).rsqrt()
        weights = (weights / weights.mean()).float()
    return DiceCrossEntropyLoss(recipe.over_batch, recipe.smooth, weights)
