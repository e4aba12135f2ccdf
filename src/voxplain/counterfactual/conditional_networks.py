"""Encoder and conditional decoder of the published counterfactual generators."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrizations import spectral_norm

from voxplain.counterfactual.generator import Generator, Repair
from voxplain.counterfactual.generator_config import ConditionalConfig

N_CONDITIONS = 2
"""Bins of the classifier's probability: 0 normal, 1 abnormal."""
NORMAL = 0
BODY_GAIN = 2**0.5
"""Of the first weights of what lies beside a shortcut."""


class Convolution(nn.Conv2d):
    """Convolves; its weight is made in float32, so that fp16 cannot spoil a spectral norm."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """Convolve."""
        with torch.autocast(_autocast_type(input), enabled=False):
            weight = self.weight
        return F.conv2d(input, weight, self.bias, self.stride, self.padding)


def convolution(
    n_in: int, n_out: int, pixels: int, gain: float, *, is_spectral: bool, bias: bool = False
) -> nn.Conv2d:
    """Build a convolution that keeps the size.

    Parameters
    ----------
    n_in, n_out
        Channels.
    pixels
        Side of the kernel, odd.
    gain
        Of Xavier's uniform first weights.
    is_spectral
        Divide the weight, as a matrix of n_out rows, by its largest singular value, which one
        power iteration follows at each training pass.
    bias
        Whether it adds one; 0 at first.
    """
    layer = Convolution(n_in, n_out, pixels, padding=pixels // 2, bias=bias)
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    if is_spectral:
        spectral_norm(layer)  # in place
    return layer


class ConditionalNorm(nn.Module):
    """γ_k·(v − μ)/σ + β_k: batch norm with a gain and a shift for each condition k.

    Parameters
    ----------
    n_channels
        Of what is normed; γ ~ N(1, 0.02) and β = 0 at first.
    """

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(n_channels, affine=False)
        self.gain = nn.Embedding(N_CONDITIONS, n_channels)
        self.shift = nn.Embedding(N_CONDITIONS, n_channels)
        nn.init.normal_(self.gain.weight, 1.0, 0.02)
        nn.init.zeros_(self.shift.weight)

    def forward(self, features: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Norm (batch, channels, rows, columns) by the condition (batch,) of each item."""
        gain, shift = self.gain(condition), self.shift(condition)
        normed = self.norm(features)
        return torch.as_tensor(gain[:, :, None, None] * normed + shift[:, :, None, None])


class DownBlock(nn.Module):
    """Halves the picture: conv1(pool(v)) + conv3(relu(bn(conv3(pool(relu(bn(v)))))))."""

    def __init__(self, n_in: int, n_out: int, is_spectral: bool) -> None:
        super().__init__()
        self.shortcut = convolution(n_in, n_out, 1, 1.0, is_spectral=is_spectral)
        self.body = nn.Sequential(
            nn.BatchNorm2d(n_in),
            nn.ReLU(),
            nn.AvgPool2d(2),
            convolution(n_in, n_out, 3, BODY_GAIN, is_spectral=is_spectral),
            nn.BatchNorm2d(n_out),
            nn.ReLU(),
            convolution(n_out, n_out, 3, BODY_GAIN, is_spectral=is_spectral),
        )

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Halve."""
        return torch.as_tensor(self.body(features) + self.shortcut(F.avg_pool2d(features, 2)))


class UpBlock(nn.Module):
    """Doubles the picture: conv1(up(v)) + conv3(relu(cbn(conv3(up(relu(cbn(v)))))))."""

    def __init__(self, n_in: int, n_out: int, is_spectral: bool, upsampling: str) -> None:
        super().__init__()
        self.upsampling = upsampling
        self.shortcut = convolution(n_in, n_out, 1, 1.0, is_spectral=is_spectral)
        self.norms = nn.ModuleList([ConditionalNorm(n_in), ConditionalNorm(n_out)])
        self.convolutions = nn.ModuleList(
            convolution(n, n_out, 3, BODY_GAIN, is_spectral=is_spectral) for n in (n_in, n_out)
        )

    def forward(self, features: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Double."""
        body = self._doubled(F.relu(self.norms[0](features, condition)))
        body = F.relu(self.norms[1](self.convolutions[0](body), condition))
        return torch.as_tensor(self.convolutions[1](body) + self.shortcut(self._doubled(features)))

    def _doubled(self, features: torch.Tensor) -> torch.Tensor:
        return F.interpolate(features, scale_factor=2, mode=self.upsampling)


class Encoder(nn.Module):
    """Stem conv3 → relu → bn, then one `DownBlock` a width; gives the output of each block."""

    def __init__(self, config: ConditionalConfig) -> None:
        super().__init__()
        widths = config.widths
        first = Convolution(1, widths[0], 3, padding=1, bias=False)
        nn.init.xavier_normal_(first.weight)
        self.stem = nn.Sequential(first, nn.ReLU(), nn.BatchNorm2d(widths[0]))
        before = (widths[0], *widths[:-1])
        self.blocks = nn.ModuleList(
            DownBlock(n_in, n_out, config.spectral)
            for n_in, n_out in zip(before, widths, strict=True)
        )

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Features of each level, finest first."""
        features, levels = self.stem(images), []
        for block in self.blocks:
            features = block(features)
            levels.append(features)
        return levels


class Decoder(nn.Module):
    """One `UpBlock` a width, coarsest first; then bn → relu → conv3 to one channel, the raw o.

    The inputs of blocks 1 … `skips` (block 0 is the coarsest) also hold the encoder's features
    of their size.
    """

    def __init__(self, config: ConditionalConfig) -> None:
        super().__init__()
        self.n_skips = config.skips
        widths = config.widths[::-1]
        before = (widths[0], *widths[:-1])
        self.blocks = nn.ModuleList(
            UpBlock(
                n_in + (n_out if 1 <= i <= config.skips else 0), n_out,
                config.spectral, config.upsampling,
            )
            for i, (n_in, n_out) in enumerate(zip(before, widths, strict=True))
        )  # fmt: skip
        self.head = nn.Sequential(
            nn.BatchNorm2d(widths[-1]),
            nn.ReLU(),
            convolution(widths[-1], 1, 3, 1.0, is_spectral=False, bias=True),
        )

    def forward(self, levels: list[torch.Tensor], condition: torch.Tensor) -> torch.Tensor:
        """Raw map o, (batch, 1, rows, columns)."""
        features = levels[-1]
        for i, block in enumerate(self.blocks):
            if 1 <= i <= self.n_skips:
                features = torch.cat([features, levels[-1 - i]], dim=1)
            features = block(features, condition)
        return torch.as_tensor(self.head(features))


class ConditionalGenerator(Generator):
    """x′ = tanh(x + o) or tanh(o), with o = Decoder(Encoder(x), condition).

    Parameters
    ----------
    config
        Widths, skips, and whether o is a perturbation of x.

    Notes
    -----
    tanh(x + o) is not x for o = 0, and x = ±1 cannot be reached: the identity takes
    o = atanh x − x, which training has to find first. Kept as published.

    Differs from the paper: the published spectral norm takes no gradient through the singular
    value and moves at evaluation, too; this is torch's, which does neither. With `spectral` it
    is on every convolution of a residual block, not on the stem and the head.

    References
    ----------
    Shvetsov et al. 2024, arXiv 2404.12832; Singla et al. 2019, arXiv 1911.00483.
    """

    def __init__(self, config: ConditionalConfig) -> None:
        super().__init__()
        self.multiple = 2 ** len(config.widths)
        self.is_perturbation = config.perturbation
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)

    def forward(self, images: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Return x′, (batch, 1, rows, columns), for the wanted bin (batch,) of each picture."""
        raw = self.decoder(self.encoder(images), condition).float()
        return torch.tanh(images + raw) if self.is_perturbation else torch.tanh(raw)

    def repair(self, images: torch.Tensor) -> Repair:
        """Repair a batch: the condition is normal for all."""
        normal = torch.full((len(images),), NORMAL, dtype=torch.long, device=images.device)
        return Repair(self(images, normal))


@contextmanager
def unrecorded(module: nn.Module) -> Iterator[None]:
    """Leave the running statistics of batch norms alone while training passes run."""
    norms = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.track_running_stats = False
    try:
        yield
    finally:
        for norm in norms:
            norm.track_running_stats = True


def _autocast_type(like: torch.Tensor) -> str:
    """Device type that autocast knows; a tensor without memory stands for one on the CPU."""
    return "cpu" if like.is_meta else like.device.type
