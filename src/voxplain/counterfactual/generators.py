"""The kinds of generators: their learners by configuration, and trained ones from disk."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors import SafetensorError
from safetensors.torch import load_file

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.generator import Generator, Learner, Source
from voxplain.counterfactual.generator_config import GeneratorConfig
from voxplain.counterfactual.precision import Precision
from voxplain.errors import ModelError, TrainingError
from voxplain.models.weights import weights_sha256
from voxplain.train.loop import amp_type
from voxplain.train.settings_file import Amp

WEIGHTS = "weights.safetensors"
RECORD = "generator.json"
KINDS = {
    "coin": ("voxplain.counterfactual.coin", "Coin"),
    "conditional": ("voxplain.counterfactual.conditional", "Conditional"),
    "inpaint-mask": ("voxplain.counterfactual.inpaint_mask", "InpaintMask"),
}
"""Module of each kind, and how its classes ``…Learner`` and ``…Generator`` begin."""


def precision_of(amp: Amp, device: torch.device) -> torch.dtype | None:
    """Return the type of mixed precision, None for float32.

    Raises
    ------
    TrainingError
        If it is fp16 on a CPU.
    """
    return amp_type(amp, device)


def learner_of(
    config: GeneratorConfig,
    classifier: Classifier,
    source: Source,
    size: tuple[int, int],
    seed: int,
    device: torch.device,
    amp: torch.dtype | None,
) -> Learner:
    """Build the learner of a configuration, with its first weights.

    Parameters
    ----------
    config
        Its kind decides.
    classifier
        What must be turned; frozen.
    source
        Training slices.
    size
        Rows and columns of the pictures.
    seed
        Of first weights and of every draw.
    device
        Where to train.
    amp
        From `precision_of`.

    Raises
    ------
    TrainingError
        If rows or columns are not divisible by what the generator needs.
    """
    learner: Learner = _class_of(config, "Learner")(
        config, classifier, source, size, seed, device, Precision(device, amp)
    )
    multiple = learner.generator.multiple
    if any(length % multiple for length in size):
        raise TrainingError(
            f"data.size is {list(size)}, but a generator of kind {config.kind} with these settings "
            f"takes rows and columns that are divisible by {multiple}: choose e.g. "
            f"{[-(-length // multiple) * multiple for length in size]}"
        )
    return learner


def build_generator(config: GeneratorConfig) -> Generator:
    """Build the network of a configuration, with weights from torch's global generator."""
    generator: Generator = _class_of(config, "Generator")(config)
    return generator


def open_generator(folder: Path) -> Generator:
    """Open a trained generator, on the CPU, in evaluation mode and without gradients of weights.

    Parameters
    ----------
    folder
        Where `voxplain.counterfactual.generator_training.train_generator` wrote it.

    Raises
    ------
    ModelError
        If its training is not finished, or a file is missing, damaged or of another generator.
    """
    missing = [name for name in (RECORD, WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise ModelError(
            f"{folder}: expected a trained generator, but {' and '.join(missing)} are not there; "
            "finish its training first"
        )
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        config: GeneratorConfig = TypeAdapter(GeneratorConfig).validate_python(record["config"])
        expected = record["sha256"]
        weights = load_file(folder / WEIGHTS)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(f"{folder}: cannot be read as a trained generator ({reason})") from None
    with torch.random.fork_rng(devices=[]):
        generator = build_generator(config)
    try:
        generator.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{folder / WEIGHTS}: are not the weights of the generator in {RECORD} ({reason})"
        ) from None
    if weights_sha256(generator) != expected:
        raise ModelError(
            f"{folder / WEIGHTS}: differ from those that were trained, by the hash in {RECORD}; "
            "train again with --fresh"
        )
    return generator.eval().requires_grad_(False)


def _class_of(config: GeneratorConfig, what: str) -> Any:
    module, name = KINDS[config.kind]
    return getattr(import_module(module), f"{name}{what}")
