"""Without an adversary: a frozen inpainting network, and a network that chooses the mask."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.draw_seed import seeded, step_generator
from voxplain.counterfactual.generator import Generator, Repair, Source
from voxplain.counterfactual.generator_config import InpaintMaskConfig
from voxplain.counterfactual.losses import jittered, total_variation, turned
from voxplain.counterfactual.precision import Precision
from voxplain.counterfactual.unet import (
    MULTIPLE,
    TARGET,
    begin_at,
    build_unet,
    smoothed,
    unet_arguments,
)
from voxplain.space.write import atomic_folder

FOLDER = "inpainter"
_CELLS = 8  # of the random field that holes are cut from, along each axis
_SHARPNESS = 8.0  # of the holes' edges
_EDGE_PX = 0.5  # of holes when it is a fill; a wider edge hides more of what surrounds a hole


class InpaintMaskGenerator(Generator):
    """x′ = (1 − m)·x + m·r with r = tanh(Inpaint((1 − m)·x, m)), m = mean over px of σ(U-Net(x)).

    Parameters
    ----------
    config
        Width and beginning of the networks.
    """

    multiple = MULTIPLE

    def __init__(self, config: InpaintMaskConfig) -> None:
        super().__init__()
        self.inpainter = build_unet(2, 1, config.width)
        self.chooser = build_unet(1, 1, config.width)
        self.smooth_px = config.smooth_px
        begin_at(self.chooser, [config.mask_bias])

    def filled(self, images: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
        """Return r: what the inpainting network sees in the holes, 1 inside."""
        seen = torch.cat([(1 - holes) * images, holes], dim=1)
        return torch.as_tensor(self.inpainter(seen)).float().tanh()

    def repair(self, images: torch.Tensor) -> Repair:
        """Repair a batch."""
        mask = smoothed(self.chooser(images).float().sigmoid(), self.smooth_px)
        fill = self.filled(images, mask)
        return Repair((1 - mask) * images + mask * fill, mask, fill)


class InpaintMaskLearner:
    """Trains an `InpaintMaskGenerator` in two stages; see `InpaintMaskConfig` for the losses.

    Parameters
    ----------
    config, classifier, source, size, seed, device, precision
        As of `voxplain.counterfactual.coin.CoinLearner`.

    Notes
    -----
    The same objective as COIN's (turned, minimal, smooth, realistic), but what is realistic is
    learned beforehand, from normal slices alone, and frozen. There is no adversary, so nothing
    oscillates. The mask is the family of Fong & Vedaldi 2017 (arXiv 1704.03296), of Dabkowski &
    Gal 2017 (arXiv 1705.07857) and, with inpainting, of FIDO (Chang et al. 2019, arXiv
    1807.08024).
    """

    def __init__(
        self, config: InpaintMaskConfig, classifier: Classifier, source: Source,
        size: tuple[int, int], seed: int, device: torch.device, precision: Precision,
    ) -> None:  # fmt: skip
        self.config, self.source, self.seed, self.size = config, source, seed, size
        self.classifier = classifier.to(device)
        self.precision = precision
        self.n_steps = config.inpaint_steps + config.steps
        with seeded(seed):  # networks are made on the CPU
            generator = InpaintMaskGenerator(config)
        self._generator = generator.to(device)
        self.networks: Mapping[str, nn.Module] = {"generator": self._generator}
        self._optimisers = [
            torch.optim.Adam(network.parameters(), config.learning_rate)
            for network in (self._generator.inpainter, self._generator.chooser)
        ]
        self.optimisers: Mapping[str, torch.optim.Optimizer] = dict(
            zip(("inpainter", "chooser"), self._optimisers, strict=True)
        )

    @property
    def generator(self) -> Generator:
        """What is used."""
        return self._generator

    def step(self, number: int) -> dict[str, float]:
        """Learn from one batch: to fill holes first, then to choose the mask."""
        stage = int(number >= self.config.inpaint_steps)
        lengths = (self.config.inpaint_steps, self.config.steps)
        within = number - stage * self.config.inpaint_steps
        for group in self._optimisers[stage].param_groups:
            group["lr"] = self.config.learning_rate * one_cycle(within, lengths[stage])
        terms = self._choose(number) if stage else self._inpaint(number)
        total = self._total(terms)
        self.precision.descend(total, self._optimisers[stage])
        return {name: float(value.detach()) for name, value in {**terms, "total": total}.items()}

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Terms of the second stage on a validation batch, and ``total``."""
        with torch.inference_mode():
            terms = self._terms(self._generator.repair(images), None)
            terms["total"] = self._total(terms)
        return {name: float(value) for name, value in terms.items()}

    def _inpaint(self, number: int) -> dict[str, torch.Tensor]:
        images = self.source.batch("inpaint", number, self.config.batch, 0).images
        draws = step_generator(self.seed, "holes", number)
        holes = random_holes(len(images), self.size, self.config.hole_share, draws).to(images)
        with self.precision.autocast():
            fill = self._generator.filled(images, holes)
        wrong = (fill - images).abs()
        return {"inpaint": (holes * wrong).sum() / holes.sum() + 0.1 * wrong.mean()}

    def _choose(self, number: int) -> dict[str, torch.Tensor]:
        n = self.config.batch
        images = self.source.batch("generator", number, n // 2, n).images
        draws = step_generator(self.seed, "jitter", number)
        with self.precision.autocast():
            repair = self._generator.repair(images)
        return self._terms(repair, draws)

    def _terms(self, repair: Repair, draws: torch.Generator | None) -> dict[str, torch.Tensor]:
        """Terms by name: the classifier's on all slices, normal ones keep the mask away."""
        assert repair.mask is not None
        seen = repair.image
        if draws is not None:
            seen = jittered(seen, self.config.jitter_noise, self.config.jitter_blur_px, draws)
        return {
            "classifier": turned(self.classifier.logit(seen), self.config.margin),
            "mask": repair.mask.mean(),
            "tv": total_variation(repair.mask),
        }

    def _total(self, terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
        weights = {
            "inpaint": 1.0,
            "classifier": self.config.weight_classifier,
            "mask": self.config.weight_mask,
            "tv": self.config.weight_tv,
        }
        return torch.stack([weights[name] * value for name, value in terms.items()]).sum()


def one_cycle(step: int, n_steps: int) -> float:
    """Share of the highest rate: rises along a cosine over 30 % of the steps, falls to 0."""
    peak = 0.3 * n_steps
    along = step / peak if step < peak else (n_steps - step) / max(n_steps - peak, 1)
    return 0.5 - 0.5 * float(torch.cos(torch.tensor(torch.pi * (0.04 + 0.96 * along))))


def random_holes(
    n: int, size: tuple[int, int], share: tuple[float, float], draws: torch.Generator
) -> torch.Tensor:
    """Random smooth holes, (n, 1, rows, columns) in [0, 1]: a coarse random field, cut off.

    Each picture's field is cut at its own quantile, so that a share drawn from `share` of its
    pixels lies inside.
    """
    field = F.interpolate(
        torch.randn((n, 1, _CELLS, _CELLS), generator=draws), size=size, mode="bicubic"
    )
    low, high = share
    covered = low + (high - low) * torch.rand(n, generator=draws)
    ranked = field.flatten(1).sort(dim=1, descending=True).values
    place = (covered * (ranked.shape[1] - 1)).long()[:, None]
    return (_SHARPNESS * (field - ranked.gather(1, place)[:, :, None, None])).sigmoid()


def write_inpainter(
    generator: InpaintMaskGenerator, config: InpaintMaskConfig, folder: Path,
    preparation: Mapping[str, Any], name: str,
) -> None:  # fmt: skip
    """Write the inpainting network alone, for ``--fill inpaint:DIR`` of other methods.

    Parameters
    ----------
    generator, config
        Trained, and its settings.
    folder
        Gets ``inpainter.json`` and ``weights.safetensors``, in place of earlier ones.
    preparation
        ``plane``, ``low`` and ``high``: what −1 and 1 stand for, ``pixel_mm`` and ``size``.
    name
        In tables.
    """
    about = {
        "target": TARGET,
        "arguments": unet_arguments(2, 1, config.width),
        "plane": preparation["plane"],
        "low": preparation["low"],
        "high": preparation["high"],
        "multiple": MULTIPLE,
        "name": name,
        "pixel_mm": preparation["pixel_mm"],
        "size": preparation["size"],
        "edge_px": _EDGE_PX,
    }
    weights = {k: v.cpu().contiguous() for k, v in generator.inpainter.state_dict().items()}
    with atomic_folder(folder) as place:
        save_file(weights, place / "weights.safetensors")
        (place / "inpainter.json").write_text(json.dumps(about, indent=2))
