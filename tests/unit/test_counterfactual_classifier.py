"""Classifiers: cards, training, resumption, and existing ones."""

import json
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from monai.networks.nets import Classifier as MonaiClassifier
from safetensors.torch import load_file, save_file
from sklearn.metrics import roc_auc_score
from torch import nn

import voxplain
from voxplain.counterfactual.classifier import (
    AbnormalLogit,
    auroc,
    classifier_of,
    picture_logits,
)
from voxplain.counterfactual.classifier_networks import NETWORKS, build, write_card
from voxplain.counterfactual.classifier_training import (
    check_classifier,
    existing_classifier,
    open_classifier,
    train_classifier,
)
from voxplain.counterfactual.config import AugmentationConfig, ClassifierConfig
from voxplain.counterfactual.generator import Batch
from voxplain.counterfactual.slices import COLUMNS, Slices
from voxplain.errors import ModelError, TrainingError
from voxplain.models.card_model import wrap
from voxplain.space import Grid, Volume

CPU = torch.device("cpu")
SIZE = (16, 16)
STILL = AugmentationConfig(flip_lr=0, move=0, noise=0, blur_px=0, gain=0)


@dataclass(frozen=True)
class Window:
    size: tuple[int, int] = SIZE
    low: float = -60.0
    high: float = 300.0


def _pictures(rng, labels, size=SIZE):
    images = rng.uniform(-0.6, -0.2, (len(labels), 1, *size)).astype(np.float32)
    for image, label in zip(images, labels, strict=True):
        if label:
            row, column = rng.integers(2, size[0] - 6, 2)
            image[0, row : row + 4, column : column + 4] += 1.0
    return images


@dataclass(frozen=True)
class Toy:
    """A source of bright squares."""

    fault: float | None = None
    size: tuple[int, int] = SIZE

    def batch(self, stream, step, n_normal, n_abnormal):
        labels = np.repeat([0, 1], [n_normal, n_abnormal])
        return self._of(labels, [len(stream), step])

    def mixed(self, stream, step, n):
        rng = np.random.default_rng([len(stream), step, 5])
        return self._of((rng.random(n) < 0.3).astype(int), [len(stream), step])

    def _of(self, labels, words):
        images = torch.from_numpy(_pictures(np.random.default_rng(words), labels, self.size))
        if self.fault is not None and words[1] == 3:
            images[:] = self.fault
        return Batch(images, torch.from_numpy(labels).float(), torch.ones_like(images))


def _slices(images, labels):
    n, _, *size = images.shape
    table = pd.DataFrame({
        "case": ["a"] * n, "patient": 0, "plane": "axial", "index": range(n),
    })[list(COLUMNS)]  # fmt: skip
    true = np.ones((n, *size), np.bool_)
    return Slices(images, np.asarray(labels, np.int8), ~true, true, true, table)


def _validation(n=24, seed=7, size=SIZE):
    labels = np.arange(n) % 2
    return _slices(_pictures(np.random.default_rng(seed), labels, size), labels)


def _config(**changes):
    values = {"steps": 12, "batch": 8, "validate_every": 4, "augmentation": STILL}
    return ClassifierConfig(**{**values, **changes})


def _train(out, config=None, source=None, validation=None, preparation=None, **changes):
    given = {"name": "classifier", "seed": 3, "amp": "auto", "device": CPU, **changes}
    return train_classifier(
        config or _config(), source or Toy(), validation or _validation(), out,
        preparation or Window(), **given,
    )  # fmt: skip


def _weights(folder):
    return load_file(folder / "weights.safetensors")


def _same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[k], other[k]) for k in one)


# cards


@pytest.mark.parametrize("network", NETWORKS)
def test_every_network_comes_back_from_its_card_to_the_last_bit(network, tmp_path):
    torch.manual_seed(1)
    module = build(network).eval()
    write_card(tmp_path / "c", module, network, Window(size=(32, 32)), "mine")
    opened = open_classifier(tmp_path / "c")
    images = torch.rand(2, 1, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.equal(opened.logit(images), module(images)[:, 0])
    assert opened.network.is_plain
    assert opened.name == "mine"
    assert not any(weight.requires_grad for weight in opened.network.parameters())


def test_a_card_takes_slices_in_the_intensities_of_the_image(tmp_path):
    torch.manual_seed(1)
    module = build("small").eval()
    write_card(tmp_path / "c", module, "small", Window(), "mine")
    model = voxplain.load_model(tmp_path / "c")
    assert model.info.class_names == ("abnormal",)
    assert model.info.activation == "sigmoid"
    values = np.random.default_rng(0).uniform(-1000, 1000, (1, *SIZE)).astype(np.float32)
    prepared = model.prepare(Volume(values, Grid(SIZE, np.eye(3))))
    wanted = 2 * (np.clip(values, -60, 300) + 60) / 360 - 1
    np.testing.assert_allclose(prepared.data, wanted, atol=1e-6)
    other = Volume(np.zeros((1, 8, 20), np.float32), Grid((8, 20), np.eye(3)))
    assert model.prepare(other).data.shape == (1, *SIZE)


def test_a_window_without_width_writes_no_card(tmp_path):
    with pytest.raises(ModelError, match="low < high"):
        write_card(tmp_path / "c", build("small"), "small", Window(low=5.0, high=5.0), "mine")
    assert not (tmp_path / "c").exists()


def test_the_small_network_has_maps_of_four_sizes():
    shapes = []
    module = build("small").eval()
    for name in ("layer1", "layer2", "layer3", "layer4"):
        getattr(module, name).register_forward_hook(lambda _m, _i, out: shapes.append(out.shape))
    module(torch.zeros(1, 1, 64, 64))
    assert [tuple(s[1:]) for s in shapes] == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4)]


def test_an_unknown_network_is_named():
    with pytest.raises(ModelError, match="choose one of small, resnet18"):
        build("vgg")


# training


def test_bright_squares_are_learned_and_everything_is_written(tmp_path):
    seen = []
    trained = _train(
        tmp_path / "c", _config(steps=60, batch=8, validate_every=20),
        progress=lambda step, steps, loss: seen.append((step, steps, loss)),
    )  # fmt: skip
    assert trained.auroc > 0.95
    assert [s[0] for s in seen] == list(range(1, 61))
    validation, opened = _validation(), open_classifier(tmp_path / "c")
    logits = picture_logits(opened.network, validation.images)
    assert roc_auc_score(validation.labels, logits) == pytest.approx(trained.auroc)
    assert check_classifier(opened, validation) == pytest.approx(trained.auroc)
    log = pd.read_csv(tmp_path / "c" / "log.csv")
    assert log["step"].tolist() == [20, 40, 60]
    assert log["auroc"].max() == pytest.approx(trained.auroc)
    assert log["step"][log["auroc"] == log["auroc"].max()].iloc[-1] == trained.best_step
    assert log["loss"].tolist() == pytest.approx(
        [np.mean([s[2] for s in seen[i : i + 20]]) for i in (0, 20, 40)]
    )
    said = json.loads((tmp_path / "c" / "calibration.json").read_text())
    assert said["temperature"] == trained.temperature >= 1
    table = pd.read_csv(tmp_path / "c" / "calibration.csv")
    assert table["n"].sum() == said["n"] == len(validation)


def test_the_rate_is_the_one_cycle_of_torch(tmp_path):
    _train(tmp_path / "c")
    weight = torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.Adam([weight], 3e-3)
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=12)
    rates = []
    for _ in range(12):
        optimiser.step()
        cycle.step()
        rates.append(cycle.get_last_lr()[0])
    found = pd.read_csv(tmp_path / "c" / "log.csv")["rate"]
    np.testing.assert_allclose(found, [rates[3], rates[7], rates[11]], rtol=1e-9)


class KilledError(Exception):
    pass


@pytest.mark.parametrize(
    "network",
    ["small", pytest.param("efficientnet-b0", marks=pytest.mark.slow)],  # it drops blocks at random
)
def test_killed_and_resumed_is_uninterrupted_to_the_last_bit(network, tmp_path):
    config = _config(
        network=network, augmentation=AugmentationConfig(), balanced=network == "small",
        weight_decay=0.01,
    )  # fmt: skip
    size = SIZE if network == "small" else (32, 32)
    given = {
        "config": config, "source": Toy(size=size), "validation": _validation(size=size),
        "preparation": Window(size=size),
    }  # fmt: skip
    whole = _train(tmp_path / "whole", **given)
    torch.manual_seed(99)  # what ran before must not matter

    for last in (3, 6, 11):

        def kill(step, _steps, _loss, last=last):
            if step == last:
                raise KilledError

        with pytest.raises(KilledError):
            _train(tmp_path / "torn", **given, progress=kill)
        torch.rand(5)
    assert not (tmp_path / "torn" / "weights.safetensors").exists()
    resumed = _train(tmp_path / "torn", **given)
    assert _same(_weights(tmp_path / "whole"), _weights(tmp_path / "torn"))
    assert (resumed.auroc, resumed.temperature) == (whole.auroc, whole.temperature)
    columns = ["step", "loss", "rate", "auroc"]
    pd.testing.assert_frame_equal(
        *(pd.read_csv(tmp_path / name / "log.csv")[columns] for name in ("whole", "torn"))
    )


def test_training_leaves_the_global_generator_alone(tmp_path):
    torch.manual_seed(4)
    wanted = torch.rand(3)
    torch.manual_seed(4)
    _train(tmp_path / "c")
    assert torch.equal(torch.rand(3), wanted)


def test_a_finished_training_is_returned_and_another_one_refused(tmp_path):
    first = _train(tmp_path / "c")

    def never(*_):
        raise AssertionError("it trains again")

    assert _train(tmp_path / "c", progress=never) == first
    with pytest.raises(TrainingError, match="seed was 3, now 4"):
        _train(tmp_path / "c", seed=4)
    with pytest.raises(TrainingError, match=r"classifier\.batch was 8, now 6"):
        _train(tmp_path / "c", _config(batch=6))
    with pytest.raises(TrainingError, match="validation_sha256"):
        _train(tmp_path / "c", validation=_validation(seed=8))
    with pytest.raises(TrainingError, match="window"):
        _train(tmp_path / "c", preparation=Window(low=0.0))
    before = _weights(tmp_path / "c")
    _train(tmp_path / "c", seed=4, resume=False)
    assert not _same(before, _weights(tmp_path / "c"))
    (tmp_path / "c" / "weights.safetensors").unlink()
    with pytest.raises(TrainingError, match="taken away"):
        _train(tmp_path / "c", seed=4)


def test_a_judge_is_another_network_of_other_slices(tmp_path):
    _train(tmp_path / "c", _config(steps=3))
    _train(tmp_path / "j", _config(steps=3, seed=1), name="judge")
    assert not _same(_weights(tmp_path / "c"), _weights(tmp_path / "j"))
    _train(tmp_path / "k", _config(steps=3, seed=1))  # the seeds are added: 3 + 1 = 4 + 0
    _train(tmp_path / "l", _config(steps=3), seed=4)
    assert _same(_weights(tmp_path / "k"), _weights(tmp_path / "l"))


def test_the_best_validation_is_kept_not_the_last(tmp_path, monkeypatch):
    from voxplain.counterfactual import classifier_loop

    areas = iter([0.6, 0.9, 0.7])
    monkeypatch.setattr(classifier_loop, "auroc", lambda *_: next(areas))
    trained = _train(tmp_path / "c", _config(calibrate=False))
    assert (trained.best_step, trained.auroc, trained.temperature) == (8, 0.9, 1.0)


def test_of_equal_validations_the_last_is_kept(tmp_path, monkeypatch):
    from voxplain.counterfactual import classifier_loop

    areas = iter([1.0, 1.0, 0.7])
    monkeypatch.setattr(classifier_loop, "auroc", lambda *_: next(areas))
    assert _train(tmp_path / "c", _config(calibrate=False)).best_step == 8


def test_bf16_trains_on_a_cpu_and_fp16_does_not(tmp_path):
    _train(tmp_path / "c", _config(steps=2, validate_every=1), amp="bf16")
    assert all(torch.isfinite(v).all() for v in _weights(tmp_path / "c").values())
    with pytest.raises(TrainingError, match="needs CUDA"):
        _train(tmp_path / "d", amp="fp16")


def test_a_loss_that_is_no_number_stops_with_its_causes(tmp_path):
    with pytest.raises(TrainingError, match=r"step 4\. Causes: \(a\) the learning rate of 0\.003"):
        _train(tmp_path / "c", source=Toy(float("nan")))


@pytest.mark.parametrize(("labels", "missing"), [(0, "abnormal"), (1, "normal")])
def test_a_validation_of_one_class_is_refused_at_once(tmp_path, labels, missing):
    whole = _validation()
    part = _slices(whole.images, np.full(len(whole), labels))
    with pytest.raises(TrainingError, match=f"validation part has .*; {missing} ones are needed"):
        _train(tmp_path / "c", validation=part)
    assert not (tmp_path / "c").exists()


def test_small_batches_and_pictures_are_refused(tmp_path):
    with pytest.raises(TrainingError, match="at least 2"):
        _train(tmp_path / "c", _config(batch=1))
    with pytest.raises(TrainingError, match=r"densenet121 cannot take pictures of \(16, 16\)"):
        _train(tmp_path / "c", _config(network="densenet121"))


# existing classifiers


class Mean(nn.Module):
    """Logits a·mean + b, a class each."""

    def __init__(self, slopes, shifts):
        super().__init__()
        self.slopes = nn.Parameter(torch.tensor(slopes))
        self.shifts = nn.Parameter(torch.tensor(shifts))

    def forward(self, images):
        return self.slopes * images.mean((1, 2, 3))[:, None] + self.shifts


def _wrapped(classes, activation, slopes, shifts):
    return wrap(
        Mean(slopes, shifts), classes=classes, channels=["x"], kind="classification",
        activation=activation, rank=2, size=SIZE,
    )  # fmt: skip


def test_two_exclusive_classes_give_their_margin():
    model = _wrapped(["normal", "ill"], "softmax", [1.0, 3.0], [0.5, -0.25])
    images = torch.rand(3, 1, *SIZE) * 2 - 1
    found = classifier_of(model, None, -1.0, 1.0).logit(images)
    torch.testing.assert_close(found, 2 * images.mean((1, 2, 3)) - 0.75)
    other = classifier_of(model, "normal", -1.0, 1.0).logit(images)
    torch.testing.assert_close(other, -found)


def test_the_margin_is_the_log_odds_of_softmax():
    model = _wrapped(["a", "b", "c"], "softmax", [1.0, 3.0, -2.0], [0.5, -0.25, 0.1])
    images = torch.rand(3, 1, *SIZE).double()
    model.module.double()
    found = classifier_of(model, "b", -1.0, 1.0).probability(images)
    torch.testing.assert_close(found, model.module(images).softmax(1)[:, 1])
    with pytest.raises(ModelError, match="which of a, b, c"):
        classifier_of(model, None, -1.0, 1.0)
    with pytest.raises(ModelError, match="no class 'd'"):
        classifier_of(model, "d", -1.0, 1.0)


def test_classes_that_stand_alone_give_their_own_logit():
    model = _wrapped(["a", "b"], "sigmoid", [1.0, 3.0], [0.5, -0.25])
    images = torch.rand(3, 1, *SIZE)
    found = classifier_of(model, "b", -1.0, 1.0).logit(images)
    torch.testing.assert_close(found, 3 * images.mean((1, 2, 3)) - 0.25)


def test_pictures_are_mapped_to_what_the_network_takes():
    # −1 → low, 1 → high: prepared = (high − low)/2·x + (high + low)/2
    model = _wrapped(["ill"], "sigmoid", [1.0], [0.0])
    images = torch.rand(3, 1, *SIZE) * 2 - 1
    classifier = classifier_of(model, None, -60.0, 300.0)
    assert not classifier.network.is_plain
    torch.testing.assert_close(classifier.logit(images), 180 * images.mean((1, 2, 3)) + 120)
    plain = AbnormalLogit(nn.Flatten(), 0, False, 1.0, 0.0)
    assert plain(images).shape == (3, 1)


def test_an_existing_card_is_used_and_its_folder_unchanged(tmp_path):
    torch.manual_seed(0)
    folder = tmp_path / "theirs"
    folder.mkdir()
    arguments = {
        "in_shape": [1, *SIZE], "classes": 2, "channels": [2, 4], "strides": [2, 2],
    }  # fmt: skip
    card = {
        "name": "theirs", "kind": "classification",
        "network": {"target": "monai.networks.nets.Classifier", "arguments": arguments},
        "input": {"channels": ["x"], "rank": 2, "size": list(SIZE)},
        "activation": "softmax", "classes": ["normal", "ill"],
    }  # fmt: skip
    network = MonaiClassifier(**arguments)
    save_file(network.state_dict(), folder / "weights.safetensors")
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    classifier = existing_classifier(ClassifierConfig(card=str(folder)), Window(low=-2.0, high=2.0))
    images = torch.rand(4, 1, *SIZE) * 2 - 1
    with torch.no_grad():
        both = network.eval()(2 * images)
    torch.testing.assert_close(classifier.logit(images), both[:, 1] - both[:, 0])
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    with pytest.raises(ModelError, match="names no folder"):
        existing_classifier(ClassifierConfig(), Window())


# checks


def _classifier(slopes=(1.0,), shifts=(0.0,)):
    return classifier_of(_wrapped(["ill"], "sigmoid", list(slopes), list(shifts)), None, -1.0, 1.0)


def test_the_check_returns_the_auroc_whatever_the_batch():
    part = _validation()
    wanted = roc_auc_score(part.labels, part.images.mean((1, 2, 3)))
    assert check_classifier(_classifier(), part) == pytest.approx(wanted)
    assert check_classifier(_classifier(), part, batch=5) == pytest.approx(wanted)
    assert check_classifier(_classifier([-1.0]), part) == pytest.approx(1 - wanted)


def test_logits_that_are_all_the_same_are_explained():
    part = _validation()
    with pytest.raises(TrainingError, match=r"is 0\.5 for all 24 test slices: .*network is dead"):
        check_classifier(_classifier([0.0], [0.5]), part, "test")
    flat = _slices(np.full_like(part.images, -1), part.labels)
    with pytest.raises(TrainingError, match="each of them is constant"):
        check_classifier(_classifier(), flat)
    same = _slices(np.repeat(part.images[:1], len(part), 0), part.labels)
    with pytest.raises(TrainingError, match="all the same picture"):
        check_classifier(_classifier(), same)


def test_logits_that_are_no_numbers_are_counted():
    with pytest.raises(TrainingError, match="24 of 24 validation slices"):
        check_classifier(_classifier([float("nan")]), _validation())
    with pytest.raises(TrainingError, match="1 of 2 test slices"):
        auroc(np.array([1.0, np.inf]), np.array([0, 1]), "test")


def test_a_part_without_slices_of_a_class_is_named():
    with pytest.raises(TrainingError, match="0 normal and 0 abnormal"):
        auroc(np.zeros(0), np.zeros(0), "test")


def test_pictures_of_another_size_are_said_plainly(tmp_path):
    module = nn.Sequential(nn.Flatten(), nn.Linear(256, 1))
    model = wrap(
        module, classes=["ill"], channels=["x"], kind="classification", activation="sigmoid",
        rank=2, size=SIZE,
    )  # fmt: skip
    labels = np.array([0, 1])
    part = _slices(np.zeros((2, 1, 8, 8), np.float32), labels)
    with pytest.raises(ModelError, match=r"cannot take pictures of \(8, 8\)"):
        check_classifier(classifier_of(model, None, -1.0, 1.0), part)
