"""COIN, stabilised: one U-Net draws a mask and a fill, against a patch discriminator."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import nn

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.draw_seed import seeded, step_generator
from voxplain.counterfactual.generator import Generator, Repair, Source
from voxplain.counterfactual.generator_config import CoinConfig
from voxplain.counterfactual.losses import (
    hinge_fake,
    hinge_real,
    jittered,
    total_variation,
    turned,
)
from voxplain.counterfactual.precision import Precision
from voxplain.counterfactual.unet import MULTIPLE, begin_at, build_unet, smoothed


class CoinGenerator(Generator):
    """x′ = (1 − m)·x + m·r; m = mean over `smooth_px` of σ(a), r = tanh(b), (a, b) = U-Net(x).

    Parameters
    ----------
    config
        Width and beginning of the network.

    Notes
    -----
    Differs from the paper, whose x′ = tanh(x + o) is not x for o = 0 and cannot be at ±1: here
    the identity is m = 0, which is close to where training begins.
    """

    multiple = MULTIPLE

    def __init__(self, config: CoinConfig) -> None:
        super().__init__()
        self.unet = build_unet(1, 2, config.width)
        self.smooth_px = config.smooth_px
        begin_at(self.unet, [config.mask_bias, 0.0])

    def repair(self, images: torch.Tensor) -> Repair:
        """Repair a batch."""
        mask_logit, fill_logit = self.unet(images).float().chunk(2, dim=1)
        mask = smoothed(mask_logit.sigmoid(), self.smooth_px)
        fill = fill_logit.tanh()
        return Repair((1 - mask) * images + mask * fill, mask, fill)


class CoinLearner:
    """Trains a `CoinGenerator`; see `CoinConfig` for the loss.

    Parameters
    ----------
    config
        Weights of the terms and schedule.
    classifier
        What must be turned; frozen.
    source
        Training slices.
    size
        Rows and columns, multiples of 16.
    seed
        Of first weights and jitter.
    device
        Where to train.
    precision
        Mixed precision.

    Notes
    -----
    Differs from the paper: real pictures are normal slices only and fakes are repaired abnormal
    ones, so the discriminator needs no condition; generator and discriminator learn in every
    step; no cycle; the classifier's term is on the logit, of slightly changed pictures; the
    weights that are used are a moving average. All of it is in ``coin.md`` of the concepts.

    References
    ----------
    Shvetsov et al. 2024, arXiv 2404.12832.
    """

    def __init__(
        self, config: CoinConfig, classifier: Classifier, source: Source, size: tuple[int, int],
        seed: int, device: torch.device, precision: Precision,
    ) -> None:  # fmt: skip
        from monai.networks.nets import PatchDiscriminator

        self.config, self.source, self.seed, self.device = config, source, seed, device
        self.classifier = classifier.to(device)
        self.precision = precision
        self.n_steps = config.steps
        with seeded(seed):  # networks are made on the CPU
            learning = CoinGenerator(config)
            discriminator = PatchDiscriminator(
                spatial_dims=2, channels=config.discriminator_width, in_channels=1,
                out_channels=1, num_layers_d=config.discriminator_layers, norm="INSTANCE",
            )  # fmt: skip
        self._learning = learning.to(device)
        self._average = copy.deepcopy(self._learning).eval().requires_grad_(False)
        self._discriminator = discriminator.to(device)
        self.networks: Mapping[str, nn.Module] = {
            "generator": self._average,
            "learning": self._learning,
            "discriminator": self._discriminator,
        }
        self._generator_optimiser = torch.optim.Adam(
            self._learning.parameters(), config.learning_rate, betas=config.betas
        )
        self._discriminator_optimiser = torch.optim.Adam(
            self._discriminator.parameters(), config.discriminator_rate, betas=config.betas
        )
        self.optimisers: Mapping[str, torch.optim.Optimizer] = {
            "generator": self._generator_optimiser,
            "discriminator": self._discriminator_optimiser,
        }

    @property
    def generator(self) -> Generator:
        """What is used: the moving average."""
        return self._average

    def step(self, number: int) -> dict[str, float]:
        """Learn from one batch, half normal and half abnormal; terms of the loss by name."""
        config = self.config
        n = config.batch
        images = self.source.batch("generator", number, n, n).images
        normal, abnormal = images[:n], images[n:]
        draws = step_generator(self.seed, "jitter", number)
        with self.precision.autocast():
            repair = self._learning.repair(images)
        repaired, same = repair.image[n:], repair.image[:n]
        assert repair.mask is not None
        terms = self._terms(normal, same, abnormal, repaired, repair.mask[n:], draws)
        if config.weight_adversarial:
            with self.precision.autocast():
                terms["adversarial"] = -self._score(repaired).mean()
        total = self._total(terms)
        self.precision.descend(total, self._generator_optimiser)
        if config.weight_adversarial:
            real = self.source.batch("real", number, n, 0).images
            with self.precision.autocast():
                fake = repaired.detach()
                opposed = hinge_real(self._score(real)) + hinge_fake(self._score(fake))
            self.precision.descend(opposed, self._discriminator_optimiser)
            terms["discriminator"] = opposed
        self._follow(number)
        return {name: float(value.detach()) for name, value in {**terms, "total": total}.items()}

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Terms of a validation batch without the adversarial one, and their sum ``total``."""
        is_abnormal = labels > 0
        with torch.inference_mode():
            repair = self._average.repair(images)
            assert repair.mask is not None
            terms = self._terms(
                images[~is_abnormal], repair.image[~is_abnormal], images[is_abnormal],
                repair.image[is_abnormal], repair.mask[is_abnormal], None,
            )  # fmt: skip
            terms["total"] = self._total(terms)
        return {name: float(value) for name, value in terms.items()}

    def _terms(
        self, normal: torch.Tensor, same: torch.Tensor, abnormal: torch.Tensor,
        repaired: torch.Tensor, mask: torch.Tensor, draws: torch.Generator | None,
    ) -> dict[str, torch.Tensor]:  # fmt: skip
        """Terms by name; a part of the batch that is empty has none."""
        config, terms = self.config, {}
        if len(normal):
            terms["identity"] = (same - normal).abs().mean()
        if len(abnormal):
            seen = repaired
            if draws is not None:
                seen = jittered(repaired, config.jitter_noise, config.jitter_blur_px, draws)
            terms["classifier"] = turned(self.classifier.logit(seen), config.margin)
            terms["change"] = (repaired - abnormal).abs().mean()
            terms["mask"] = mask.mean()
            terms["tv"] = total_variation(mask)
        return terms

    def _total(self, terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parts = [getattr(self.config, f"weight_{name}") * value for name, value in terms.items()]
        return torch.stack(parts).sum()

    def _score(self, images: torch.Tensor) -> torch.Tensor:
        """Score of each patch by the discriminator, positive for real."""
        return torch.as_tensor(self._discriminator(images)[-1]).float()

    def _follow(self, number: int) -> None:
        """Move the average towards the learning weights, faster in the beginning."""
        keep = min(self.config.ema, (number + 1) / (number + 10))
        with torch.no_grad():
            own, learnt = self._average.parameters(), self._learning.parameters()
            for mean, new in zip(own, learnt, strict=True):
                mean.lerp_(new, 1 - keep)
