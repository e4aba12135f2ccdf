"""Terms of the published losses: target of the classifier, regions, change, adversary."""

from __future__ import annotations

from typing import Literal, assert_never

import torch
from torch.nn import functional as F  # noqa: N812

from voxplain.counterfactual.losses import hinge_fake, hinge_real

Adversarial = Literal["bce", "hinge"]
_LEVELS = 255.0
_EPSILON = 1e-8


def divergence(target: torch.Tensor, logit: torch.Tensor) -> torch.Tensor:
    """Mean KL(c ‖ q) of a target probability c and q = σ(z), from the logit z.

    KL = c·log c + (1 − c)·log(1 − c) + softplus(z) − c·z, with 0·log 0 = 0.

    Parameters
    ----------
    target
        c in [0, 1], (batch,).
    logit
        z, (batch,).

    Notes
    -----
    Differs from the paper, which clamps c and q to [1e-5, 1 − 1e-5]: the gradient in z is then
    0 wherever |z| > 11.5, so that a picture the classifier is very sure of is never repaired.
    Here it is σ(z) − c everywhere. Inside the clamps both are the same.
    """
    constant = torch.xlogy(target, target) + torch.special.xlog1py(1 - target, -target)
    return torch.as_tensor(constant + F.softplus(logit) - target * logit).mean()


def region_distance(
    images: torch.Tensor, others: torch.Tensor, organ: torch.Tensor
) -> torch.Tensor:
    """Mean over pictures of Σ_j Σ(|x − x′|·S_j) / (Σ S_j + 1e-8), S = (rest, organ) (CARL).

    Each region has the same weight, however small it is; a region without pixels adds 0.

    Parameters
    ----------
    images, others
        (batch, 1, rows, columns).
    organ
        Like `images`, 1 inside the organ.

    References
    ----------
    Singla et al. 2023, Explaining the black-box smoothly, arXiv 2101.04230: context-aware
    reconstruction loss.
    """
    regions = torch.cat([1 - organ, organ], dim=1)
    distance = ((images - others).abs() * regions).sum(dim=(2, 3))
    return (distance / (regions.sum(dim=(2, 3)) + _EPSILON)).sum(dim=1).mean()


def change_variation(images: torch.Tensor, repairs: torch.Tensor) -> torch.Tensor:
    """Squared total variation of d = 255·|x − x′|/2: mean (∂d/∂column)² + mean (∂d/∂row)².

    In the unit of d², 8-bit grey levels squared; derivatives are differences of neighbours.
    """
    change = _LEVELS / 2 * (images - repairs).abs()
    return change.diff(dim=-1).square().mean() + change.diff(dim=-2).square().mean()


def generator_opposition(kind: Adversarial, fake: torch.Tensor) -> torch.Tensor:
    """Adversarial loss of the generator on the discriminator's logits of repairs.

    ``bce``: mean softplus(−D), i.e. −log σ(D), which does not saturate; ``hinge``: −mean D.
    """
    match kind:
        case "bce":
            return F.softplus(-fake).mean()
        case "hinge":
            return -fake.mean()
        case _:
            assert_never(kind)


def discriminator_opposition(
    kind: Adversarial, real: torch.Tensor, fake: torch.Tensor
) -> torch.Tensor:
    """Loss of the discriminator: half of that on real pictures plus half of that on repairs.

    ``bce``: softplus(−D) and softplus(D); ``hinge``: max(0, 1 − D) and max(0, 1 + D); means.
    """
    match kind:
        case "bce":
            return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2
        case "hinge":
            return (hinge_real(real) + hinge_fake(fake)) / 2
        case _:
            assert_never(kind)
