"""Projection discriminator: whether a picture is real and of its condition."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import spectral_norm

from voxplain.counterfactual.conditional_networks import (
    BODY_GAIN,
    N_CONDITIONS,
    convolution,
)
from voxplain.counterfactual.generator_config import ConditionalConfig


class DiscriminatorBlock(nn.Module):
    """Residual block with spectral norm: s(v) + conv3(relu(conv3(relu(v)))), then halved.

    Parameters
    ----------
    n_in, n_out
        Channels. s is the identity for equal ones, else a 1 × 1 convolution.
    is_first
        Takes a picture: without the first relu, and always with the convolution in s.
    is_halving
        Whether average pooling halves the picture.
    """

    def __init__(self, n_in: int, n_out: int, is_first: bool, is_halving: bool) -> None:
        super().__init__()
        self.is_first, self.is_halving = is_first, is_halving
        self.shortcut = (
            convolution(n_in, n_out, 1, 1.0, is_spectral=True, bias=True)
            if is_first or n_in != n_out
            else None
        )
        self.convolutions = nn.ModuleList(
            convolution(n, n_out, 3, BODY_GAIN, is_spectral=True, bias=True) for n in (n_in, n_out)
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (batch, n_out, rows, columns), or half as many rows and columns."""
        body = self.convolutions[0](features if self.is_first else F.relu(features))
        body = self.convolutions[1](F.relu(body))
        # a 1 × 1 convolution and pooling commute: pooling the sum is both of the paper's orders
        total = body + (features if self.shortcut is None else self.shortcut(features))
        return F.avg_pool2d(total, 2) if self.is_halving else torch.as_tensor(total)


class ProjectionDiscriminator(nn.Module):
    """D(x, k) = w·h + b + ⟨e_k, h⟩ with h = Σ over pixels of relu(blocks(x)).

    w has spectral norm 1, the embedding e none.

    Parameters
    ----------
    config
        `discriminator_widths`, and whether the last block keeps the size.

    Notes
    -----
    Where it differs from the paper: torch's spectral norm, as in `ConditionalGenerator`.

    References
    ----------
    Miyato & Koyama 2018, arXiv 1802.05637, eq. 3 with its last term's V as e.
    """

    def __init__(self, config: ConditionalConfig) -> None:
        super().__init__()
        widths = config.discriminator_widths
        self.blocks = nn.ModuleList(
            DiscriminatorBlock(n_in, n_out, i == 0, halves)
            for i, (n_in, n_out, halves) in enumerate(
                zip((1, *widths[:-1]), widths, _halving(config), strict=True)
            )
        )
        self.score = nn.Linear(widths[-1], 1)
        nn.init.xavier_uniform_(self.score.weight)
        nn.init.zeros_(self.score.bias)
        spectral_norm(self.score)  # in place
        self.embedding = nn.Embedding(N_CONDITIONS, widths[-1])
        nn.init.xavier_uniform_(self.embedding.weight)

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """Return h, (batch, channels), float32."""
        features = images
        for block in self.blocks:
            features = block(features)
        return F.relu(features.float()).sum(dim=(2, 3))

    def forward(self, images: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return the logit of real, (batch,), for conditions (batch,)."""
        pooled = self.pooled(images)
        kind = "cpu" if pooled.is_meta else pooled.device.type
        with torch.autocast(kind, enabled=False):
            aligned = (self.embedding(condition) * pooled).sum(dim=1)
            return torch.as_tensor(self.score(pooled)[:, 0] + aligned)


def n_halvings(config: ConditionalConfig) -> int:
    """How often the discriminator halves a picture."""
    return sum(_halving(config))


def _halving(config: ConditionalConfig) -> list[bool]:
    n = len(config.discriminator_widths)
    return [i < n - 1 or not config.discriminator_last_full for i in range(n)]
