"""Training of the published family: Singla's explainer, COIN, and the rows between them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.conditional_networks import (
    NORMAL,
    ConditionalGenerator,
    unrecorded,
)
from voxplain.counterfactual.draw_seed import seeded
from voxplain.counterfactual.generator import Generator, Source
from voxplain.counterfactual.generator_config import ConditionalConfig
from voxplain.counterfactual.paper_losses import (
    change_variation,
    discriminator_opposition,
    divergence,
    generator_opposition,
    region_distance,
)
from voxplain.counterfactual.precision import Precision
from voxplain.counterfactual.projection import ProjectionDiscriminator, n_halvings
from voxplain.errors import TrainingError, all_faults

__all__ = ["ConditionalGenerator", "ConditionalLearner", "Wanted", "wanted"]

_NORMAL_TARGET = 1e-6
_BOUNDARY = 0.5
_WEIGHTS = {
    "adversarial": "weight_adversarial",
    "classifier": "weight_classifier",
    "reconstruction": "weight_reconstruction",
    "reconstruction_l1": "weight_reconstruction",
    "change": "weight_change",
    "tv": "weight_tv",
}


class Wanted(NamedTuple):
    """What the repair of each picture of a batch shall be; all (batch,).

    Parameters
    ----------
    target
        c, the probability that the classifier shall give.
    condition
        Bin that generator and discriminator are told, 0 normal and 1 abnormal.
    present
        Bin of what the classifier says now.
    """

    target: torch.Tensor
    condition: torch.Tensor
    present: torch.Tensor


def wanted(probability: torch.Tensor, n_conditions: int) -> Wanted:
    """Choose targets from the classifier's probabilities p, (batch,).

    Two conditions (Singla): c = 1 − p, its bin is the condition. One (COIN): c = 1e-6 where
    p ≥ 0.5, else c = p, and the condition is always normal.
    """
    present = (probability >= _BOUNDARY).long()
    if n_conditions == 1:
        target = torch.where(present > 0, _NORMAL_TARGET, probability)
        return Wanted(target, torch.full_like(present, NORMAL), present)
    target = 1 - probability
    return Wanted(target, (target >= _BOUNDARY).long(), present)


class ConditionalLearner:
    """Trains a `ConditionalGenerator` I against a projection discriminator D.

    With f the classifier, z its logit, and target c, condition k and present bin b of `wanted`:
    x′ = I(x, k), and the generator's loss is

    w_adv·adv(D(x′, k)) + w_cls·KL(c ‖ f(x′)) + w_rec·rec + w_change·|x − x′|
    + w_tv·TV²(255·|x − x′|/2),

    - one condition: rec = R(x, x′) + R(x, I(x′, 0)), the second with `cycle`;
    - two conditions: rec = R(x, I(x, b)) + R(x, I(x′, b)), the second with `cycle`.

    R is the mean |difference| or CARL. The discriminator learns that x with b is real and x′
    with k is not: in every step; the generator in steps 0, n, 2n, … with n = `generator_every`,
    before it. A term of weight 0 is not computed; without the adversarial one the
    discriminator does not learn. In a step where the generator does not learn it runs without
    a graph, and its running statistics move.

    Parameters
    ----------
    config
        Networks, weights of the terms, schedule.
    classifier
        What must be turned; frozen.
    source
        Training slices; each step takes ``mixed("generator", step, batch)``.
    size
        Rows and columns of the pictures.
    seed
        Of first weights; nothing else is drawn.
    device
        Where to train.
    precision
        Mixed precision; the losses and the classifier are computed in float32.

    Raises
    ------
    TrainingError
        If pictures of this size cannot be halved as often as the networks do.

    Notes
    -----
    Differs from the published program:

    - KL is on the logit without clamps, so that its gradient does not die (`divergence`);
    - running statistics of batch norm follow first passes x′ only, not those of repaired
      repairs (or of I(x, b)), which mixed two distributions;
    - the discriminator sees real and repaired pictures in one pass, so that both are scored
      with the same spectral norm;
    - between steps the generator is in evaluation mode.

    References
    ----------
    Shvetsov et al. 2024, arXiv 2404.12832; Singla et al. 2019, arXiv 1911.00483.
    """

    def __init__(
        self, config: ConditionalConfig, classifier: Classifier, source: Source,
        size: tuple[int, int], seed: int, device: torch.device, precision: Precision,
    ) -> None:  # fmt: skip
        _check(config, size)
        self.config, self.source = config, source
        self.classifier = classifier.to(device)
        self.precision = precision
        self.n_steps = config.steps
        with seeded(seed):  # networks are made on the CPU
            generator, discriminator = ConditionalGenerator(config), ProjectionDiscriminator(config)
        self._generator = generator.to(device).eval()
        self._discriminator = discriminator.to(device)
        self.networks: Mapping[str, nn.Module] = {
            "generator": self._generator,
            "discriminator": self._discriminator,
        }
        self._generator_optimiser, self._discriminator_optimiser = (
            torch.optim.Adam(network.parameters(), config.learning_rate, betas=config.betas)
            for network in (self._generator, self._discriminator)
        )
        self.optimisers: Mapping[str, torch.optim.Optimizer] = {
            "generator": self._generator_optimiser,
            "discriminator": self._discriminator_optimiser,
        }

    @property
    def generator(self) -> Generator:
        """What is used."""
        return self._generator

    def step(self, number: int) -> dict[str, float]:
        """Learn from one batch; terms of the loss by name.

        ``discriminator`` in every step; the generator's terms and their weighted sum ``total``
        only where it learns.
        """
        config = self.config
        images, _, organ = self.source.mixed("generator", number, config.batch)
        goal = self._wanted(images)
        is_generator_step = number % config.generator_every == 0
        terms: dict[str, torch.Tensor] = {}
        self._generator.train()
        try:
            with torch.set_grad_enabled(is_generator_step), self.precision.autocast():
                repairs = self._generator(images, goal.condition)
            if is_generator_step:
                terms = self._adversarial(repairs, goal) | self._terms(images, repairs, goal, organ)
                terms["total"] = self._total(terms)
                self.precision.descend(terms["total"], self._generator_optimiser)
        finally:
            self._generator.eval()
        if config.weight_adversarial:
            terms["discriminator"] = self._oppose(images, repairs.detach(), goal)
        return {name: float(value.detach()) for name, value in terms.items()}

    def loss(self, images: torch.Tensor, labels: torch.Tensor) -> dict[str, float]:
        """Terms of a validation batch without the adversarial one, and their sum ``total``.

        Labels are not used: the published losses follow the classifier. Regions are not known
        here: with CARL the reconstruction is the mean |difference|, ``reconstruction_l1``.
        """
        with torch.inference_mode():
            goal = self._wanted(images)
            repairs = self._generator(images, goal.condition)
            terms = self._terms(images, repairs, goal, None)
            terms["total"] = self._total(terms)
        return {name: float(value) for name, value in terms.items()}

    def _wanted(self, images: torch.Tensor) -> Wanted:
        with torch.no_grad():
            return wanted(self.classifier.probability(images), self.config.conditions)

    def _adversarial(self, repairs: torch.Tensor, goal: Wanted) -> dict[str, torch.Tensor]:
        if not self.config.weight_adversarial:
            return {}
        with self.precision.autocast():
            score = self._discriminator(repairs, goal.condition)
        return {"adversarial": generator_opposition(self.config.adversarial, score)}

    def _oppose(self, images: torch.Tensor, repairs: torch.Tensor, goal: Wanted) -> torch.Tensor:
        """Let the discriminator learn; return its loss."""
        seen = torch.cat([images, repairs])
        told = torch.cat([goal.present, goal.condition])
        with self.precision.autocast():
            real, fake = self._discriminator(seen, told).chunk(2)
        loss = discriminator_opposition(self.config.adversarial, real, fake)
        self.precision.descend(loss, self._discriminator_optimiser)
        return loss

    def _terms(
        self, images: torch.Tensor, repairs: torch.Tensor, goal: Wanted, organ: torch.Tensor | None
    ) -> dict[str, torch.Tensor]:
        """Terms that need no discriminator, by name; those of weight 0 are left out."""
        config = self.config
        terms: dict[str, torch.Tensor] = {}
        if config.weight_classifier:
            terms["classifier"] = divergence(goal.target, self.classifier.logit(repairs))
        if config.weight_reconstruction:
            is_carl = config.reconstruction == "carl"
            name = "reconstruction_l1" if is_carl and organ is None else "reconstruction"
            again = self._again(images, repairs, goal)
            terms[name] = torch.stack(
                [
                    region_distance(images, other, organ)
                    if is_carl and organ is not None
                    else F.l1_loss(other, images)
                    for other in again
                ]
            ).sum()
        if config.weight_change:
            terms["change"] = F.l1_loss(repairs, images)
        if config.weight_tv:
            terms["tv"] = change_variation(images, repairs)
        return terms

    def _again(
        self, images: torch.Tensor, repairs: torch.Tensor, goal: Wanted
    ) -> list[torch.Tensor]:
        """Return what must look like `images`."""
        is_one_way = self.config.conditions == 1
        back = goal.condition if is_one_way else goal.present
        with unrecorded(self._generator), self.precision.autocast():
            once = repairs if is_one_way else self._generator(images, back)
            return [once, self._generator(repairs, back)] if self.config.cycle else [once]

    def _total(self, terms: Mapping[str, torch.Tensor]) -> torch.Tensor:
        parts = [getattr(self.config, _WEIGHTS[name]) * value for name, value in terms.items()]
        return sum(parts, start=torch.zeros(()))


def _check(config: ConditionalConfig, size: tuple[int, int]) -> None:
    multiple, least = 2 ** len(config.widths), 2 ** n_halvings(config)
    shape = f"{size[0]} × {size[1]}"
    faults = []
    if any(side % multiple for side in size):
        faults.append(
            f"{len(config.widths)} widths halve pictures to {multiple}ths: data.size must be "
            f"multiples of {multiple}, got {shape}; change it, or give fewer widths"
        )
    if min(size) < least:
        faults.append(
            f"the discriminator halves pictures {n_halvings(config)} times: data.size must be "
            f"at least {least}, got {shape}; change it, or give fewer discriminator_widths"
        )
    if not any(getattr(config, name) for name in _WEIGHTS.values()):
        faults.append("every weight is 0: nothing can be learned; give weight_classifier, at least")
    if faults:
        raise TrainingError(all_faults("generator", faults))
