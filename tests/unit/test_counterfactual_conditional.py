"""The published family: networks, discriminator, targets and steps."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torch.nn.utils.parametrize import is_parametrized

from voxplain.counterfactual.classifier import AbnormalLogit, Classifier
from voxplain.counterfactual.conditional import ConditionalLearner, wanted
from voxplain.counterfactual.conditional_networks import (
    ConditionalGenerator,
    ConditionalNorm,
    unrecorded,
)
from voxplain.counterfactual.generator import Batch
from voxplain.counterfactual.generator_config import ConditionalConfig
from voxplain.counterfactual.precision import Precision
from voxplain.counterfactual.projection import ProjectionDiscriminator, n_halvings
from voxplain.errors import TrainingError

CPU = torch.device("cpu")
SIZE = (32, 32)


def config_of(**changes: Any) -> ConditionalConfig:
    small: dict[str, Any] = {
        "steps": 4, "batch": 4, "widths": (4, 6, 8), "skips": 2,
        "discriminator_widths": (4, 6, 6), "generator_every": 2,
    }  # fmt: skip
    return ConditionalConfig(**{**small, **changes})


class Brightness(nn.Module):
    """z = 20·(mean of x + 0.4)."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Logit, (batch, 1)."""
        return self.gain * (images.mean(dim=(1, 2, 3))[:, None] + 0.4)


def classifier_() -> Classifier:
    module = Brightness().eval().requires_grad_(False)
    network = AbnormalLogit(module, 0, is_exclusive=False, scale=1.0, shift=0.0).eval()
    return Classifier(network, "brightness", "0" * 64)


class Toy:
    """Grey pictures; every other one, abnormal, has a bright square."""

    def batch(self, stream: str, step: int, n_normal: int, n_abnormal: int) -> Batch:
        """Normal ones first."""
        n = n_normal + n_abnormal
        draws = torch.Generator().manual_seed(1000 + step)
        images = -0.5 + 0.05 * torch.randn(n, 1, *SIZE, generator=draws)
        organ = torch.zeros_like(images)
        organ[:, :, 4:28, 4:28] = 1
        images[n_normal:, :, 8:22, 10:24] += 1.1
        labels = torch.tensor([0.0] * n_normal + [1.0] * n_abnormal)
        return Batch(images.clamp(-1, 1), labels, organ)

    def mixed(self, stream: str, step: int, n: int) -> Batch:
        """Half of them abnormal."""
        return self.batch(stream, step, n - n // 2, n // 2)


def learner_(config: ConditionalConfig, classifier: Classifier | None = None) -> ConditionalLearner:
    return ConditionalLearner(
        config, classifier or classifier_(), Toy(), SIZE, 5, CPU, Precision(CPU, None)
    )


def digest(module: nn.Module) -> str:
    whole = hashlib.sha256()
    for name, value in module.state_dict().items():
        whole.update(name.encode() + value.contiguous().numpy().tobytes())
    return whole.hexdigest()


def running(module: nn.Module) -> dict[str, torch.Tensor]:
    """Running means and variances."""
    return {
        name: value.clone() for name, value in module.state_dict().items() if ".running_" in name
    }


def n_weights(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


@pytest.mark.slow  # the first module on meta loads a good part of torch
def test_sizes_of_the_published_networks() -> None:
    config = ConditionalConfig(spectral=False)  # it changes no size, and takes time
    shorter = ConditionalConfig(
        discriminator_widths=config.widths, discriminator_last_full=False, skips=0, spectral=False
    )
    with torch.device("meta"):
        generator, discriminator = ConditionalGenerator(config), ProjectionDiscriminator(config)
        plain, five = ConditionalGenerator(shorter), ProjectionDiscriminator(shorter)
        images, bins = torch.empty(2, 1, 256, 256), torch.zeros(2, dtype=torch.long)
        levels = generator.encoder(images)
        repairs, scores = generator(images, bins), discriminator(images, bins)
    assert [n_weights(part) for part in (generator.encoder, generator.decoder, discriminator)] == [
        19_581_504, 33_525_441, 38_419_905,
    ]  # fmt: skip
    assert (n_weights(plain.decoder), n_weights(five)) == (30_040_001, 19_543_489)
    assert [tuple(level.shape[1:]) for level in levels] == [
        (64, 128, 128), (128, 64, 64), (256, 32, 32), (512, 16, 16), (1024, 8, 8),
    ]  # fmt: skip
    assert (repairs.shape, scores.shape) == (images.shape, (2,))
    assert (generator.multiple, n_halvings(config), n_halvings(shorter)) == (32, 5, 5)


@pytest.mark.parametrize(
    ("size", "widths", "upsampling"),
    [
        ((32, 32), (4, 6), "nearest"),
        ((64, 48), (4, 5, 6, 7), "bilinear"),
        ((256, 256), (2, 2, 2, 2, 2), "nearest"),
    ],
)
def test_repairs_have_the_size_and_range_of_pictures(
    size: tuple[int, int], widths: tuple[int, ...], upsampling: str
) -> None:
    config = config_of(widths=widths, upsampling=upsampling, skips=len(widths) - 1)
    generator = ConditionalGenerator(config).eval()
    images = 2 * torch.rand(3, 1, *size) - 1
    before = digest(generator)
    with torch.no_grad():
        repair = generator.repair(images)
        alone = generator.repair(images[1:2]).image
    levels = [tuple(level.shape[2:]) for level in generator.encoder(images)]
    assert levels == [(size[0] >> i, size[1] >> i) for i in range(1, len(widths) + 1)]
    assert generator.multiple == 2 ** len(widths)
    assert repair.image.shape == images.shape
    assert repair.image.abs().max() <= 1
    assert (repair.mask, repair.fill) == (None, None)
    torch.testing.assert_close(alone, repair.image[1:2], rtol=0, atol=1e-5)
    assert digest(generator) == before


def test_no_perturbation_is_not_the_identity() -> None:
    images = 2 * torch.rand(2, 1, *SIZE) - 1
    for perturbation, expected in ((True, images.tanh()), (False, torch.zeros_like(images))):
        generator = ConditionalGenerator(config_of(perturbation=perturbation)).eval()
        last = generator.decoder.head[2]
        assert isinstance(last, nn.Conv2d)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            assert torch.equal(generator.repair(images).image, expected)


@pytest.mark.parametrize("skips", [0, 1, 2])
def test_skips_are_the_coarsest(skips: int) -> None:
    generator = ConditionalGenerator(config_of(skips=skips)).eval()
    images, bins = torch.rand(2, 1, *SIZE), torch.zeros(2, dtype=torch.long)
    levels = [level.detach().requires_grad_() for level in generator.encoder(images)]
    raw = generator.decoder(levels, bins)
    reached = torch.autograd.grad(raw.square().sum(), levels, allow_unused=True)
    # levels: finest first; the last one is the decoder's input
    assert [gradient is not None for gradient in reached] == [skips >= 2, skips >= 1, True]


def test_a_condition_has_its_own_gain_and_shift() -> None:
    norm = ConditionalNorm(3)
    features = torch.randn(4, 3, 5, 5)
    bins = torch.tensor([0, 1, 0, 1])
    with torch.no_grad():
        norm.gain.weight.copy_(torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]))
        norm.shift.weight.copy_(torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 2.0]]))
        got = norm(features, bins)
        for item, k in enumerate(bins.tolist()):
            gain, shift = norm.gain.weight[k], norm.shift.weight[k]
            # torch's own affine batch norm with that condition's numbers
            oracle = F.batch_norm(features, None, None, gain, shift, training=True)
            torch.testing.assert_close(got[item], oracle[item])


def test_the_condition_changes_the_repair() -> None:
    generator = ConditionalGenerator(config_of()).eval()
    images = torch.rand(2, 1, *SIZE)
    with torch.no_grad():
        normal, abnormal = (generator(images, torch.full((2,), k)) for k in (0, 1))
        assert torch.equal(generator.repair(images).image, normal)
    assert (normal - abnormal).abs().max() > 1e-4


def test_spectral_norms_are_one() -> None:
    config = config_of()
    generator, discriminator = ConditionalGenerator(config), ProjectionDiscriminator(config)
    images, bins = torch.rand(2, 1, *SIZE), torch.tensor([0, 1])
    with torch.no_grad():
        for _ in range(30):  # power iterations
            discriminator(generator(images, bins), bins)
    layers = [
        layer
        for network in (generator, discriminator)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d | nn.Linear) and is_parametrized(layer)
    ]
    assert len(layers) == 3 * (3 + 3) + (3 + 3 + 2) + 1
    for layer in layers:
        largest = torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)
        assert float(largest) == pytest.approx(1, abs=0.02)
    plain = ConditionalGenerator(config_of(spectral=False))
    assert not any(is_parametrized(layer) for layer in plain.modules())


def test_the_discriminator_projects() -> None:
    config = config_of(discriminator_widths=(4, 6, 6), discriminator_last_full=True)
    discriminator = ProjectionDiscriminator(config).eval()
    images = torch.rand(3, 1, *SIZE)
    with torch.no_grad():
        nn.init.normal_(discriminator.embedding.weight)
        features = images
        for block in discriminator.blocks:
            features = block(features)
        assert features.shape == (3, 6, 8, 8)  # the last block keeps the size
        pooled = features.relu().sum((2, 3))
        zero, one = (discriminator(images, torch.full((3,), k)) for k in (0, 1))
        linear = pooled @ discriminator.score.weight[0] + discriminator.score.bias
    torch.testing.assert_close(zero, linear + pooled @ discriminator.embedding.weight[0])
    torch.testing.assert_close(
        one - zero, pooled @ (discriminator.embedding.weight[1] - discriminator.embedding.weight[0])
    )


def test_targets() -> None:
    p = torch.tensor([0.0, 0.3, 0.5, 0.9])
    coin, singla = wanted(p, 1), wanted(p, 2)
    torch.testing.assert_close(coin.target, torch.tensor([0.0, 0.3, 1e-6, 1e-6]))
    assert coin.condition.tolist() == [0, 0, 0, 0]
    torch.testing.assert_close(singla.target, torch.tensor([1.0, 0.7, 0.5, 0.1]))
    assert singla.condition.tolist() == [1, 1, 1, 0]
    assert coin.present.tolist() == singla.present.tolist() == [0, 0, 1, 1]


def test_unrecorded_passes_leave_running_statistics() -> None:
    generator = ConditionalGenerator(config_of(spectral=False)).train()
    images, bins = torch.rand(2, 1, *SIZE), torch.zeros(2, dtype=torch.long)
    before = digest(generator)
    with torch.no_grad(), unrecorded(generator):
        inside = generator(images, bins)
    assert digest(generator) == before
    with torch.no_grad():
        assert torch.equal(generator(images, bins), inside)  # the batch's own statistics in both
    assert digest(generator) != before


@pytest.mark.parametrize("conditions", [1, 2])
@pytest.mark.parametrize("reconstruction", ["l1", "carl"])
def test_the_loss_is_the_sum_of_its_weighted_terms(conditions: int, reconstruction: str) -> None:
    config = config_of(
        conditions=conditions, reconstruction=reconstruction,
        weight_adversarial=2.0, weight_change=0.7, weight_tv=1e-4,
    )  # fmt: skip
    learner = learner_(config)
    generator, discriminator = learner.networks["generator"], learner.networks["discriminator"]
    shadow, judge = copy.deepcopy(generator).train(), copy.deepcopy(discriminator)
    terms = learner.step(0)
    images, _, organ = Toy().mixed("generator", 0, config.batch)

    # the published formulas, written out
    p = (20 * (images.mean((1, 2, 3)) + 0.4)).sigmoid()
    b = (p >= 0.5).long()
    assert b.tolist() == [0, 0, 1, 1]
    k = torch.zeros_like(b) if conditions == 1 else ((1 - p) >= 0.5).long()
    c = torch.where(p >= 0.5, 1e-6, p) if conditions == 1 else 1 - p

    def apart(other: torch.Tensor) -> torch.Tensor:
        gap = (images - other).abs()
        if reconstruction == "l1":
            return gap.mean()
        parts = [(gap * s).sum((1, 2, 3)) / (s.sum((1, 2, 3)) + 1e-8) for s in (1 - organ, organ)]
        return (parts[0] + parts[1]).mean()

    with torch.no_grad():
        repairs = shadow(images, k)
        recorded = running(shadow)  # of the first pass only
        score = judge(repairs, k)
        if conditions == 1:
            again = apart(repairs) + apart(shadow(repairs, k))
        else:
            again = apart(shadow(images, b)) + apart(shadow(repairs, b))
        q = (20 * (repairs.mean((1, 2, 3)) + 0.4)).double().sigmoid()
        kl = torch.distributions.kl_divergence(
            torch.distributions.Bernoulli(c.double()), torch.distributions.Bernoulli(q)
        ).mean()
        d = 255 * ((images + 1) / 2 - (repairs + 1) / 2).abs()
        tv = (d[..., 1:] - d[..., :-1]).square().mean() + (
            d[..., 1:, :] - d[..., :-1, :]
        ).square().mean()
        expected = {
            "adversarial": -F.logsigmoid(score).mean(),
            "classifier": kl,
            "reconstruction": again,
            "change": (images - repairs).abs().mean(),
            "tv": tv,
        }
        weights = {
            "adversarial": 2.0, "classifier": 5.0, "reconstruction": 1.0, "change": 0.7,
            "tv": 1e-4,
        }  # fmt: skip
    assert len(recorded) == 2 * (1 + 2 * 3 + 2 * 3 + 1)
    for name, value in running(generator).items():
        torch.testing.assert_close(value, recorded[name], msg=name)
    assert set(terms) == {*expected, "total", "discriminator"}
    for name, value in expected.items():
        assert terms[name] == pytest.approx(float(value), rel=2e-4), name
    total = sum(weights[name] * float(value) for name, value in expected.items())
    assert terms["total"] == pytest.approx(total, rel=2e-4)


def test_the_discriminator_sees_the_bin_of_the_real_and_the_condition_of_the_repair() -> None:
    config = config_of(conditions=2, generator_every=3)
    learner = learner_(config)
    shadow = copy.deepcopy(learner.networks["generator"]).train()
    judge = copy.deepcopy(learner.networks["discriminator"])
    terms = learner.step(1)  # not a step of the generator
    images = Toy().mixed("generator", 1, config.batch).images
    present = torch.tensor([0, 0, 1, 1])
    with torch.no_grad():
        fake = shadow(images, 1 - present)
        scores = judge(torch.cat([images, fake]), torch.cat([present, 1 - present]))
        truth = torch.tensor([1.0] * 4 + [0.0] * 4)
        expected = F.binary_cross_entropy_with_logits(scores, truth)  # mean of 8 = half of means
    assert terms == {"discriminator": pytest.approx(float(expected), rel=1e-5)}


def test_the_generator_learns_in_every_nth_step() -> None:
    learner = learner_(config_of(generator_every=3, cycle=False))
    generator, discriminator = learner.networks["generator"], learner.networks["discriminator"]
    moved = []
    for number in range(4):
        weights = [w.detach().clone() for w in generator.parameters()]
        others = [w.detach().clone() for w in discriminator.parameters()]
        terms = learner.step(number)
        moved.append(
            any(not torch.equal(a, b) for a, b in zip(weights, generator.parameters(), strict=True))
        )
        assert ("total" in terms) == moved[-1]
        assert any(
            not torch.equal(a, b) for a, b in zip(others, discriminator.parameters(), strict=True)
        )
        assert not generator.training
    assert moved == [True, False, False, True]


@pytest.mark.parametrize("perturbation", [True, False])
def test_gradients_reach_every_weight(perturbation: bool) -> None:
    learner = learner_(config_of(conditions=2, perturbation=perturbation))
    learner.step(0)
    for network in learner.networks.values():
        for name, weight in network.named_parameters():
            assert weight.grad is not None, name
            assert weight.grad.isfinite().all(), name
            assert weight.grad.abs().max() > 0, name


@pytest.mark.parametrize("conditions", [1, 2])
def test_steps_are_exact_and_continue_exactly(conditions: int) -> None:
    config = config_of(conditions=conditions)
    straight, again, first = (learner_(config) for _ in range(3))
    for number in range(3):
        torch.manual_seed(number)  # nothing outside may matter
        terms = straight.step(number)
        torch.manual_seed(99)
        assert again.step(number) == terms
        again.loss(*Toy().batch("other", 7, 2, 2)[:2])  # validation changes nothing
    first.step(0)
    resumed = ConditionalLearner(
        config, classifier_(), Toy(), SIZE, 6, CPU, Precision(CPU, None)
    )  # other first weights
    for name, network in first.networks.items():
        resumed.networks[name].load_state_dict(copy.deepcopy(network.state_dict()))
    for name, optimiser in first.optimisers.items():
        resumed.optimisers[name].load_state_dict(copy.deepcopy(optimiser.state_dict()))
    for number in (1, 2):
        resumed.step(number)
    for name, network in straight.networks.items():
        assert digest(network) == digest(again.networks[name]) == digest(resumed.networks[name])


def test_the_classifier_stays_as_it_is() -> None:
    classifier = classifier_()
    before = digest(classifier.network)
    learner = learner_(config_of(), classifier)
    for number in range(2):
        learner.step(number)
    assert digest(classifier.network) == before
    assert not any(part.training for part in classifier.network.modules())
    assert all(not w.requires_grad and w.grad is None for w in classifier.network.parameters())


def test_validation_terms() -> None:
    images, labels, _ = Toy().batch("validation", 0, 2, 2)
    terms = learner_(config_of(weight_change=0.0)).loss(images, labels)
    assert list(terms) == ["classifier", "reconstruction", "tv", "total"]
    assert terms["total"] == pytest.approx(
        5 * terms["classifier"] + terms["reconstruction"] + 0.05 * terms["tv"], rel=1e-5
    )
    carl = learner_(config_of(reconstruction="carl")).loss(images, labels)
    assert "reconstruction_l1" in carl  # regions are not known there


def test_terms_of_weight_zero_are_left_out() -> None:
    config = config_of(weight_adversarial=0, weight_tv=0, weight_reconstruction=0)
    learner = learner_(config)
    before = digest(learner.networks["discriminator"])
    assert list(learner.step(0)) == ["classifier", "change", "total"]
    assert learner.step(1) == {}
    assert digest(learner.networks["discriminator"]) == before


def test_bfloat16_steps_are_finite() -> None:
    config = config_of()
    learner = ConditionalLearner(
        config, classifier_(), Toy(), SIZE, 5, CPU, Precision(CPU, torch.bfloat16)
    )
    exact = learner_(config).step(0)
    terms = learner.step(0)
    for name, value in exact.items():
        assert terms[name] == pytest.approx(value, rel=0.1), name
    assert {w.dtype for w in learner.generator.parameters()} == {torch.float32}


def test_faults_are_told_together() -> None:
    config = config_of(
        discriminator_widths=(2,) * 6, discriminator_last_full=False, weight_adversarial=0,
        weight_classifier=0, weight_reconstruction=0, weight_change=0, weight_tv=0,
    )  # fmt: skip
    with pytest.raises(TrainingError) as caught:
        ConditionalLearner(config, classifier_(), Toy(), (36, 32), 0, CPU, Precision(CPU, None))
    text = str(caught.value)
    assert "multiples of 8, got 36 × 32" in text
    assert "at least 64, got 36 × 32" in text
    assert "every weight is 0" in text


@pytest.mark.parametrize(
    ("conditions", "n_steps"), [(1, 60), pytest.param(2, 200, marks=pytest.mark.slow)]
)
def test_training_turns_the_classifier(conditions: int, n_steps: int) -> None:
    learner = learner_(
        config_of(
            conditions=conditions, generator_every=1, cycle=False, weight_tv=1e-5,
            learning_rate=4e-3,
        )
    )  # fmt: skip
    images = Toy().batch("test", 5000, 4, 4).images
    before = learner.classifier.probability(images)
    assert (before[4:] > 0.85).all()
    for number in range(n_steps):
        learner.step(number)
    with torch.no_grad():
        after = learner.classifier.probability(learner.generator.repair(images).image)
    assert (after[4:] < 0.3).all()
