"""Terms of the losses of generators with a mask."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F  # noqa: N812


def turned(logit: torch.Tensor, margin: float) -> torch.Tensor:
    """Mean softplus(z + margin): what is left of abnormal.

    The cross-entropy of normal, −log(1 − σ(z)), moved by a margin. On the logit its gradient
    does not vanish for confident abnormals, as that of the published clamped KL does.
    """
    return F.softplus(logit + margin).mean()


def total_variation(mask: torch.Tensor) -> torch.Tensor:
    """Mean |difference of neighbours| along rows, plus that along columns."""
    return mask.diff(dim=-1).abs().mean() + mask.diff(dim=-2).abs().mean()


def hinge_real(score: torch.Tensor) -> torch.Tensor:
    """Mean max(0, 1 − D): the discriminator's loss on real pictures."""
    return F.relu(1 - score).mean()


def hinge_fake(score: torch.Tensor) -> torch.Tensor:
    """Mean max(0, 1 + D): the discriminator's loss on repaired pictures."""
    return F.relu(1 + score).mean()


def jittered(
    images: torch.Tensor, noise: float, blur_px: float, generator: torch.Generator
) -> torch.Tensor:
    """Pictures with a little noise and blur, so that the classifier cannot be turned by dust.

    Each picture gets Gaussian noise with a standard deviation drawn from [0, noise], and the
    batch a Gaussian blur with one drawn from [0, blur_px]; gradients pass through both
    (expectation over transformations).

    Parameters
    ----------
    images
        (batch, 1, rows, columns).
    noise, blur_px
        Largest standard deviations, of [−1, 1] and in pixels.
    generator
        Of the draws, on the CPU.

    References
    ----------
    Athalye et al. 2018, arXiv 1707.07397.
    """
    if noise:
        scale = noise * torch.rand((len(images), 1, 1, 1), generator=generator)
        images = images + (scale * torch.randn(images.shape, generator=generator)).to(images)
    if blur_px:
        images = _blurred(images, blur_px * float(torch.rand((), generator=generator)))
    return images


def _blurred(images: torch.Tensor, sigma: float) -> torch.Tensor:
    reach = max(1, math.ceil(3 * sigma))
    offsets = torch.arange(-reach, reach + 1, dtype=torch.float32)
    kernel = torch.exp(-(offsets**2) / (2 * max(sigma, 1e-3) ** 2))
    kernel = (kernel / kernel.sum()).to(images)
    padded = F.pad(images, (reach,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.reshape(1, 1, -1, 1))
    return F.conv2d(rows, kernel.reshape(1, 1, 1, -1))
