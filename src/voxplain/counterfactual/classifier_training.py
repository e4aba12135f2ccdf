"""Training of a classifier of normal and abnormal pictures, and opening one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from torch import nn

from voxplain.counterfactual.calibration import (
    Calibration,
    calibration,
    fit_temperature,
    fold_temperature,
    reliability,
)
from voxplain.counterfactual.classifier import (
    ABNORMAL,
    Classifier,
    Window,
    auroc,
    check_both_classes,
    classifier_of,
    picture_logits,
)
from voxplain.counterfactual.classifier_loop import FOLDER, ClassifierLoop, Progress
from voxplain.counterfactual.classifier_networks import WEIGHTS, write_card
from voxplain.counterfactual.config import ClassifierConfig
from voxplain.counterfactual.generator import Source
from voxplain.counterfactual.slices import Slices
from voxplain.errors import ModelError, TrainingError
from voxplain.inference.heap import kept_heap
from voxplain.models.card_file import CARD
from voxplain.models.load import load_model
from voxplain.models.model import Model
from voxplain.space.write import atomic_folder
from voxplain.train.settings_file import Amp
from voxplain.train.state import CHECKPOINT, State, read_state

CALIBRATION = "calibration.json"
RELIABILITY = "calibration.csv"

_SAME = 1e-6  # of the largest logit


@dataclass(frozen=True)
class TrainedClassifier:
    """What a training of a classifier came to.

    Parameters
    ----------
    folder
        Of the model card.
    name
        In tables.
    auroc
        Of the validation slices, at the best step.
    temperature
        That its logits were divided by.
    best_step
        Steps that the kept weights have learned for.
    n_steps
        Steps in all.
    n_parameters
        Weights.
    seconds
        Of training and validation, waits between interrupted parts left out.
    """

    folder: Path
    name: str
    auroc: float
    temperature: float
    best_step: int
    n_steps: int
    n_parameters: int
    seconds: float


def train_classifier(
    config: ClassifierConfig,
    source: Source,
    validation: Slices,
    out: Path,
    preparation: Window,
    *,
    name: str,
    seed: int,
    amp: Amp,
    device: torch.device,
    resume: bool = True,
    progress: Progress | None = None,
) -> TrainedClassifier:
    """Train a classifier and write it as a model card.

    The loss is the binary cross-entropy of the one logit; Adam; the weights of the best
    validation, by AUROC, are kept, of equal ones the last; the temperature is fitted on the
    validation slices and put into the last layer.

    Parameters
    ----------
    config
        Every setting of it.
    source
        Training slices; those of stream `name` are drawn, so that a judge sees others.
    validation
        Normal and abnormal slices, frozen.
    out
        Gets ``model.yaml``, ``weights.safetensors``, ``log.csv``, ``calibration.json`` and
        ``calibration.csv``; ``training/`` in it holds the state.
    preparation
        Size and window of the pictures, for the card.
    name
        Of the model; also names its draws.
    seed
        Of the run; `config.seed` is added.
    amp
        Mixed precision of the passes of training.
    device
        Where it is trained.
    resume
        Continue what an interrupted training left, from its last validation: on a CPU the
        weights are then those of an uninterrupted one, to the last bit. A finished one of the
        same settings and data is returned as it is. False begins anew.
    progress
        Called after every step.

    Raises
    ------
    TrainingError
        If validation lacks a class, a batch or picture is too small, `out` holds another
        training, the loss is not a number, or the device cannot train in this precision.

    References
    ----------
    Shvetsov et al., COIN, arXiv 2404.12832: ResNet-18 and EfficientNet-V2-S, neither calibrated
    nor chosen by validation.
    """
    check_both_classes(validation.labels, "validation")
    if config.batch < 2:
        raise TrainingError(f"classifier.batch: at least 2 slices are needed, got {config.batch}")
    training = ClassifierLoop(config, source, name, seed + config.seed, amp, device)
    identity = _identity(training, validation, preparation, amp)
    place = out / FOLDER
    if not resume:
        (place / CHECKPOINT).unlink(missing_ok=True)
    state = read_state(place, identity)
    if "temperature" in state.best:
        return _finished(state, out, name)
    training.restore(state, preparation.size)
    with kept_heap():
        state = training.run(state, validation, out, progress)
    training.network.load_state_dict(state.best["network"])
    module = training.network.eval()
    measured = _write(module, config, validation, out, preparation, name)
    best = {key: state.best[key] for key in ("step", "auroc")}
    n_weights = sum(weight.numel() for weight in module.parameters())
    best |= {"temperature": measured.temperature, "n_parameters": n_weights}
    state = replace(state, parts={}, best=best)  # from now on only what was found is needed
    state.write(place)
    return _finished(state, out, name)


def open_classifier(folder: Path | str) -> Classifier:
    """Load a classifier that was trained for a run: its network takes [−1, 1] itself.

    Raises
    ------
    ModelError
        If the folder holds no such model.
    """
    return classifier_of(_one_model(folder), ABNORMAL, -1.0, 1.0)


def existing_classifier(config: ClassifierConfig, preparation: Window) -> Classifier:
    """Load any classifier for a run; its folder is only read.

    Parameters
    ----------
    config
        Says the folder of the model, `card`, and its abnormal class.
    preparation
        `low` and `high` are the intensities, after the model's own preparation, that −1 and 1
        stand for.

    Raises
    ------
    ModelError
        If no folder is said, or the model cannot be loaded, or is no classifier of one channel
        in 2D with such a class.
    TrustError
        If other code would have to be imported.
    """
    if config.card is None:
        raise ModelError("classifier.card names no folder of an existing classifier")
    model = _one_model(config.card)
    return classifier_of(model, config.abnormal_class, preparation.low, preparation.high)


def check_classifier(
    classifier: Classifier, slices: Slices, part: str = "validation", batch: int = 64
) -> float:
    """Check that a classifier says something of slices, and return its AUROC.

    Parameters
    ----------
    classifier
        To be explained, or the judge.
    slices
        Normal and abnormal ones.
    part
        What the slices are called in errors.
    batch
        Slices in one pass.

    Returns
    -------
    float
        0 to 1, 0.5 for chance.

    Raises
    ------
    TrainingError
        If slices of one class are missing, a logit is not a number, or all logits are the same
        (they differ by less than a millionth of the largest).
    ModelError
        If the network cannot take slices of this size.
    """
    try:
        logits = picture_logits(classifier.network, slices.images, batch)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{classifier.name}: cannot take pictures of {slices.images.shape[2:]} pixels "
            f"({reason}); set data.size to what it was trained on"
        ) from error
    area = auroc(logits, slices.labels, part)
    if np.ptp(logits) <= _SAME * np.abs(logits).max():
        raise TrainingError(
            f"{classifier.name}: the logit of abnormal is {logits[0]:.4g} for all {len(logits)} "
            f"{part} slices: {_why_constant(slices)}"
        )
    return area


def _one_model(folder: Path | str) -> Model:
    model = load_model(folder)
    if not isinstance(model, Model):
        raise ModelError(f"{folder}: several models in one; a classifier is one network")
    return model


def _identity(
    training: ClassifierLoop, validation: Slices, preparation: Window, amp: Amp
) -> dict[str, Any]:
    """Collect what must agree for a training to be continued, as plain values."""
    hashes = {"training": sha256(), "validation": sha256()}
    first = training.batch(0)
    for array in (validation.images, validation.labels):
        hashes["validation"].update(np.ascontiguousarray(array).tobytes())
    for tensor in (first.images, first.labels):
        hashes["training"].update(tensor.cpu().contiguous().numpy().tobytes())
    values = {
        "classifier": training.config.model_dump(mode="json"),
        "seed": training.seed,
        "name": training.name,
        "amp": amp,
        "size": list(preparation.size),
        "window": [float(preparation.low), float(preparation.high)],
        "first_batch_sha256": hashes["training"].hexdigest(),
        "validation_sha256": hashes["validation"].hexdigest(),
    }
    return dict(json.loads(json.dumps(values)))


def _write(
    module: nn.Module,
    config: ClassifierConfig,
    validation: Slices,
    out: Path,
    preparation: Window,
    name: str,
) -> Calibration:
    """Calibrate the network in place, and write everything but the state."""
    labels = np.asarray(validation.labels)
    logits = picture_logits(module, validation.images)
    temperature = fit_temperature(logits, labels) if config.calibrate else 1.0
    if temperature != 1.0:
        fold_temperature(module, temperature, preparation.size)
    measured = calibration(logits, labels, temperature)
    with atomic_folder(out) as place:
        write_card(place, module, config.network, preparation, name)
        (place / CALIBRATION).write_text(json.dumps(asdict(measured), indent=2) + "\n")
        reliability(expit(logits / temperature), labels).to_csv(place / RELIABILITY, index=False)
    return measured


def _finished(state: State, out: Path, name: str) -> TrainedClassifier:
    missing = [file for file in (CARD, WEIGHTS) if not (out / file).is_file()]
    if missing:
        raise TrainingError(
            f"{out}: the training ended, and {' and '.join(missing)} were taken away since; put "
            "them back, or begin anew with --fresh"
        )
    return TrainedClassifier(
        out, name, state.best["auroc"], state.best["temperature"], state.best["step"],
        state.epoch, state.best["n_parameters"], sum(float(r["seconds"] or 0) for r in state.rows),
    )  # fmt: skip


def _why_constant(slices: Slices) -> str:
    images = np.asarray(slices.images)
    if all(np.ptp(image) == 0 for image in images):
        return (
            "each of them is constant; check data.intensity.window against the images' "
            "intensities, e.g. with voxplain data check --full"
        )
    if all(np.array_equal(image, images[0]) for image in images):
        return "they are all the same picture; check the data"
    return (
        "the pictures differ, so the network is dead; train it anew with another seed or a "
        "smaller learning rate, or check that its card's intensity steps fit data.intensity"
    )
