"""Generators with a mask: what they are at the start, what a step changes, what they learn."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from voxplain.counterfactual.classifier import AbnormalLogit, Classifier
from voxplain.counterfactual.coin import CoinGenerator, CoinLearner
from voxplain.counterfactual.draw_seed import step_generator
from voxplain.counterfactual.generator import Batch
from voxplain.counterfactual.generator_config import CoinConfig, InpaintMaskConfig
from voxplain.counterfactual.inpaint_mask import (
    InpaintMaskGenerator,
    InpaintMaskLearner,
    write_inpainter,
)
from voxplain.counterfactual.precision import Precision
from voxplain.models.network import build_network
from voxplain.models.weights import read_weights

CPU = torch.device("cpu")
SIZE = (32, 32)


class Squares:
    """Grey pictures; abnormal ones have a bright square at a random place."""

    def batch(self, stream: str, step: int, n_normal: int, n_abnormal: int) -> Batch:
        draws = step_generator(3, stream, step)
        n = n_normal + n_abnormal
        images = 0.05 * torch.randn((n, 1, *SIZE), generator=draws) - 0.4
        for image in images[n_normal:]:
            row, column = torch.randint(4, 22, (2,), generator=draws).tolist()
            image[0, row : row + 6, column : column + 6] += 1.0
        labels = torch.cat([torch.zeros(n_normal), torch.ones(n_abnormal)])
        return Batch(images.clamp(-1, 1), labels, torch.ones_like(images))

    def mixed(self, stream: str, step: int, n: int) -> Batch:
        return self.batch(stream, step, n // 2, n - n // 2)


class Brightest(nn.Module):
    """Logit 20·max over 3 × 3 of the mean brightness: high if anything is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(20.0))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        local = nn.functional.avg_pool2d(images, 3, stride=1)
        return self.scale * local.flatten(1).amax(1, keepdim=True)


def classifier() -> Classifier:
    module = Brightest().eval().requires_grad_(False)
    return Classifier(AbnormalLogit(module, 0, False, 1.0, 0.0).eval(), "brightest", "0")


def coin(**changes: float) -> CoinLearner:
    config = CoinConfig.model_validate({"steps": 10, "batch": 4, **changes})
    return CoinLearner(config, classifier(), Squares(), SIZE, 7, CPU, Precision(CPU, None))


def inpaint(**changes: float) -> InpaintMaskLearner:
    config = InpaintMaskConfig.model_validate(
        {"inpaint_steps": 3, "steps": 3, "batch": 4, **changes}
    )
    return InpaintMaskLearner(config, classifier(), Squares(), SIZE, 7, CPU, Precision(CPU, None))


LEARNERS = {"coin": coin, "inpaint-mask": inpaint}


def weights(networks: Mapping[str, nn.Module]) -> dict[str, torch.Tensor]:
    return {
        f"{name}.{key}": value.clone()
        for name, network in networks.items()
        for key, value in network.state_dict().items()
    }


def test_a_new_generator_is_close_to_the_identity() -> None:
    torch.manual_seed(0)
    images = Squares().batch("x", 0, 2, 2).images
    with torch.no_grad():
        repair = CoinGenerator(CoinConfig()).repair(images)
    assert float((repair.image - images).abs().mean()) < 0.03
    assert repair.mask is not None
    assert float(repair.mask.max()) < 0.2


@pytest.mark.parametrize("kind", LEARNERS)
def test_repair_is_the_mixture_of_picture_and_fill(kind: str) -> None:
    learner = LEARNERS[kind]()
    images = Squares().batch("x", 1, 2, 2).images
    with torch.no_grad():
        whole, single = learner.generator.repair(images), learner.generator.repair(images[1:2])
    assert whole.mask is not None
    assert whole.fill is not None
    mixed = (1 - whole.mask) * images + whole.mask * whole.fill
    torch.testing.assert_close(whole.image, mixed, rtol=0, atol=0)
    torch.testing.assert_close(whole.image[1:2], single.image, rtol=0, atol=5e-6)
    assert float(whole.image.abs().max()) <= 1


@pytest.mark.parametrize("kind", LEARNERS)
def test_steps_depend_on_state_and_number_alone(kind: str) -> None:
    straight, broken = LEARNERS[kind](), LEARNERS[kind]()
    for number in range(5):
        straight.step(number)
    for number in range(2):
        broken.step(number)
    torch.randn(11)  # whatever else the process drew
    continued = LEARNERS[kind]()
    for name, network in continued.networks.items():
        network.load_state_dict(broken.networks[name].state_dict())
    for name, optimiser in continued.optimisers.items():
        optimiser.load_state_dict(broken.optimisers[name].state_dict())
    for number in range(2, 5):
        continued.step(number)
    wanted, found = weights(straight.networks), weights(continued.networks)
    for name, value in wanted.items():
        assert torch.equal(value, found[name]), name


def test_a_term_of_weight_zero_costs_nothing_and_changes_nothing() -> None:
    with_d, without = coin(), coin(weight_adversarial=0)
    terms = without.step(0)
    assert "discriminator" not in terms
    before = weights({"d": with_d.networks["discriminator"]})
    after = weights({"d": without.networks["discriminator"]})
    assert all(torch.equal(before[k], after[k]) for k in before)
    with_d.step(0)
    moved = weights({"d": with_d.networks["discriminator"]})
    assert any(not torch.equal(before[k], moved[k]) for k in before)


def test_total_is_the_weighted_sum_of_terms() -> None:
    learner = coin(weight_tv=0.7, weight_mask=0.3)
    terms = learner.step(0)
    config = learner.config
    names = ("adversarial", "classifier", "identity", "change", "mask", "tv")
    total = sum(getattr(config, f"weight_{name}") * terms[name] for name in names)
    assert terms["total"] == pytest.approx(total, rel=1e-5)


def test_the_first_stage_leaves_the_mask_alone_and_the_second_the_inpainting() -> None:
    learner = inpaint()
    start = weights(learner.networks)
    learner.step(0)
    middle = weights(learner.networks)
    learner.step(3)
    end = weights(learner.networks)
    for name in start:
        of_mask = ".chooser." in name
        if of_mask:
            assert torch.equal(start[name], middle[name]), name
        else:
            assert torch.equal(middle[name], end[name]), name
    assert any(not torch.equal(start[n], middle[n]) for n in start)
    assert any(not torch.equal(middle[n], end[n]) for n in start)


def test_classifier_stays_as_it_was() -> None:
    learner = coin()
    before = weights({"c": learner.classifier.network})
    learner.step(0)
    assert all(
        torch.equal(v, before[k]) for k, v in weights({"c": learner.classifier.network}).items()
    )
    assert not learner.classifier.network.training
    assert all(p.grad is None for p in learner.classifier.network.parameters())


@pytest.mark.parametrize("kind", LEARNERS)
def test_validation_of_a_batch_without_one_class(kind: str) -> None:
    learner = LEARNERS[kind]()
    batch = Squares().batch("x", 1, 0, 3)
    terms = learner.loss(batch.images, batch.labels)
    assert "total" in terms
    assert "identity" not in terms


def test_coin_learns_to_remove_the_square() -> None:
    learner = coin(steps=60, learning_rate=3e-3, ema=0.9)
    batch = Squares().batch("test", 0, 4, 8)
    before = learner.classifier.probability(batch.images[4:])
    for number in range(60):
        learner.step(number)
    with torch.no_grad():
        repair = learner.generator.repair(batch.images)
    after = learner.classifier.probability(repair.image[4:])
    assert float(before.min()) > 0.9
    assert float(after.mean()) < 0.2
    changed = (repair.image - batch.images).abs()
    assert float(changed[:4].mean()) < 0.05


def test_inpainter_is_written_as_others_read_it(tmp_path: Path) -> None:
    learner = inpaint()
    generator = learner.generator
    assert isinstance(generator, InpaintMaskGenerator)
    about = {"plane": "axial", "low": -200.0, "high": 300.0, "pixel_mm": 3.0, "size": [16, 32]}
    write_inpainter(generator, learner.config, tmp_path / "inpainter", about, "kidneys")
    card = json.loads((tmp_path / "inpainter" / "inpainter.json").read_text())
    assert {key: card[key] for key in about} == about
    network = build_network(card["target"], card["arguments"], tmp_path)
    network.load_state_dict(read_weights(tmp_path / "inpainter" / "weights.safetensors"))
    images, holes = torch.rand(2, 1, *SIZE), torch.zeros(2, 1, *SIZE)
    holes[..., 8:14, 9:15] = 1
    with torch.no_grad():
        seen = network(torch.cat([(1 - holes) * images, holes], 1)).tanh()
        torch.testing.assert_close(seen, generator.filled(images, holes), rtol=0, atol=0)


@pytest.mark.parametrize("kind", LEARNERS)
def test_the_classifier_is_asked_in_float32(kind: str) -> None:
    """Under mixed precision too: only networks that learn run in 16 bits."""
    learner = LEARNERS[kind]()
    learner.precision = Precision(CPU, torch.bfloat16)
    seen = []

    def look(module: nn.Module, given: tuple[torch.Tensor]) -> None:
        seen.append((torch.is_autocast_enabled("cpu"), given[0].dtype))

    learner.classifier.network.module.register_forward_pre_hook(look)
    for number in range(4):
        learner.step(number)
    assert set(seen) == {(False, torch.float32)}


@pytest.mark.parametrize("kind", LEARNERS)
def test_making_a_learner_leaves_the_callers_generators_alone(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seeded_devices = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded_devices.append)
    before = torch.get_rng_state()
    first = weights(LEARNERS[kind]().networks)
    assert torch.equal(torch.get_rng_state(), before)
    assert not seeded_devices  # torch.manual_seed would, of every GPU
    torch.randn(3)
    again = weights(LEARNERS[kind]().networks)
    assert all(torch.equal(first[name], again[name]) for name in first)
