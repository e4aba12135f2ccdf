"""A finished training of a generator: its weights and its record, and what they replace."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors.torch import save_file

from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.generators import RECORD, WEIGHTS
from voxplain.counterfactual.training_log import LOG, TENSORBOARD, read_log
from voxplain.errors import ModelError, TrainingError
from voxplain.models.weights import read_weights, weights_sha256
from voxplain.records.provenance import package_versions
from voxplain.space.write import atomic_file
from voxplain.train.state import differences

STATE = "training"
SAMPLES = "samples"


@dataclass(frozen=True, eq=False)
class TrainedGenerator:
    """What is known of a finished training.

    Parameters
    ----------
    folder
        Of ``weights.safetensors``, ``generator.json``, ``log.csv`` and ``samples``.
    n_steps
        Steps that were done.
    stopped_early
        Whether it ended because validation no longer improved.
    best_step
        Step after which the kept weights were reached: the best validation where
        ``config.patience`` is set, else the last step.
    seconds
        Wall time of the steps, validations included, of all sessions.
    rows
        ``log.csv``: columns ``step``, each term, ``val_…``, ``seconds``.
    sha256
        Hash of the kept weights, of `voxplain.models.weights.weights_sha256`.
    """

    folder: Path
    n_steps: int
    stopped_early: bool
    best_step: int
    seconds: float
    rows: pd.DataFrame
    sha256: str


def write_trained(
    folder: Path,
    identity: Mapping[str, Any],
    generator: Generator,
    rows: Sequence[Mapping[str, float | int | None]],
    *,
    config: Mapping[str, Any],
    size: Sequence[int],
    n_steps: int,
    best_step: int,
    stopped_early: bool,
) -> TrainedGenerator:
    """Write the kept weights, then the record that marks the training as finished.

    The state is removed.

    Parameters
    ----------
    folder
        With ``log.csv``.
    identity
        What the weights depend on.
    generator
        With the weights that are kept.
    rows
        Of the log.
    config
        Every setting of the generator.
    size
        Rows and columns of the pictures.
    n_steps, best_step, stopped_early
        As of `TrainedGenerator`.
    """
    weights = {
        name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()
    }
    with atomic_file(folder / WEIGHTS) as path:
        save_file(weights, path)
    record = {
        "config": config,
        "identity": identity,
        "size": list(size),
        "n_steps": n_steps,
        "best_step": best_step,
        "stopped_early": stopped_early,
        "seconds": round(sum(float(row["seconds"] or 0) for row in rows), 1),
        "sha256": weights_sha256(generator),
        "device": next(generator.parameters()).device.type,
        "versions": package_versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    with atomic_file(folder / RECORD) as path:
        text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
        path.write_text(text, encoding="utf-8")
    _remove(folder / STATE)
    return _of_record(folder, record)


def read_trained(folder: Path, identity: Mapping[str, Any], into: Generator) -> TrainedGenerator:
    """Take what was trained before, if it was trained with the same.

    Parameters
    ----------
    folder
        With a record.
    identity
        What it must have been trained with.
    into
        Gets the weights.

    Raises
    ------
    TrainingError
        If it is another training (the message names what differs), or a file is missing,
        damaged or not of this training.
    """
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        differing = differences(record["identity"], identity)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{folder / RECORD}: cannot be read as the record of a training ({error}); --fresh "
            "begins anew"
        ) from None
    if differing:
        raise TrainingError(
            f"{folder} holds a finished training that was begun differently: "
            f"{'; '.join(differing)}. Begin anew with --fresh, or choose another --out"
        )
    try:
        into.load_state_dict(read_weights(folder / WEIGHTS))
    except (ModelError, RuntimeError) as error:
        raise TrainingError(f"{' '.join(str(error).split())}; --fresh trains it again") from None
    if weights_sha256(into) != record.get("sha256"):
        raise TrainingError(
            f"{folder / WEIGHTS}: differ from those that were trained, by the hash in {RECORD}; "
            "--fresh trains them again"
        )
    _remove(folder / STATE)
    return _of_record(folder, record)


def clear(folder: Path) -> None:
    """Remove what an earlier training wrote; what marks it as finished goes first."""
    for name in (RECORD, WEIGHTS, LOG):
        (folder / name).unlink(missing_ok=True)
    for path in (folder / SAMPLES).glob("step_*.png"):
        path.unlink(missing_ok=True)
    _remove(folder / TENSORBOARD)
    _remove(folder / STATE)


def _remove(folder: Path) -> None:
    if folder.is_dir():
        shutil.rmtree(folder)


def _of_record(folder: Path, record: Mapping[str, Any]) -> TrainedGenerator:
    names = ("n_steps", "stopped_early", "best_step", "seconds", "sha256")
    return TrainedGenerator(folder, rows=read_log(folder), **{name: record[name] for name in names})
