"""A run: slices, classifiers and generators that belong together, in one folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.classifier_training import existing_classifier, open_classifier
from voxplain.counterfactual.config import ClassifierConfig, Config
from voxplain.counterfactual.config_file import read_config
from voxplain.counterfactual.generator import Generator
from voxplain.counterfactual.generators import RECORD as RECORD_OF_ONE
from voxplain.counterfactual.generators import open_generator
from voxplain.counterfactual.preparation import Preparation, read_preparation
from voxplain.counterfactual.slices import Slices, read_slices
from voxplain.errors import DataError, all_faults
from voxplain.models.load import load_model
from voxplain.models.model import Model
from voxplain.space.labelmap import nearest

CONFIG = "config.yaml"
PREPARATION = "preparation.json"
DATA = "data.json"
RECORD = "record.json"
THRESHOLD = "threshold.json"
MODEL = "model of the intensities"
"""In the identity of the data: hash of the model whose preparation comes first."""
LEAST_AUROC = 0.7
"""Of classifier and judge on the validation slices; below, a note says so."""

_WEAK = {
    "classifier": "what turns it need not be what is abnormal",
    "judge": "what it says of repairs means little",
}


@dataclass(frozen=True)
class Run:
    """A folder that `train_run` wrote.

    Parameters
    ----------
    folder
        Where it lies.
    config
        Every setting.
    """

    folder: Path
    config: Config

    @cached_property
    def preparation(self) -> Preparation:
        """How an image becomes pictures."""
        return read_preparation(self.folder / PREPARATION)

    @cached_property
    def notes(self) -> tuple[str, ...]:
        """What a reader must know of the data, the classifier and the judge."""
        weak = [
            f"the {name} hardly tells abnormal from normal: AUROC {about['auroc']:.2f} on the "
            f"validation slices; {_WEAK[name]}"
            for name, about in self.about_classifiers.items()
            if about["auroc"] < LEAST_AUROC
        ]
        return (*self.about_data["notes"], *weak)

    @cached_property
    def about_data(self) -> Mapping[str, Any]:
        """Counts of cases, patients and slices, and the hash of the data."""
        found: dict[str, Any] = json.loads((self.folder / DATA).read_text(encoding="utf-8"))
        return found

    @cached_property
    def about_classifiers(self) -> Mapping[str, Any]:
        """AUROC on the validation slices and hash of ``classifier`` and ``judge``."""
        record = json.loads((self.folder / RECORD).read_text(encoding="utf-8"))
        if "classifiers" not in record:
            raise DataError(
                f"{self.folder}: {RECORD} says nothing of the classifiers; the run is of another "
                "version, train it anew with --fresh"
            )
        return dict(record["classifiers"])

    @property
    def names(self) -> tuple[str, ...]:
        """Generators, in the order of the configuration."""
        return tuple(self.config.generators)

    def slices(self, part: str) -> Slices:
        """Return the slices of ``train``, ``validation`` or ``test``."""
        return read_slices(self.folder / "slices" / part)

    def classifier(self) -> Classifier:
        """Open the classifier that is explained."""
        return self._classifier("classifier", self.config.classifier)

    def judge(self) -> Classifier | None:
        """Open the classifier that no generator saw, if there is one."""
        config = self.config.judge
        return None if config is None else self._classifier("judge", config)

    def _classifier(self, name: str, config: ClassifierConfig) -> Classifier:
        if config.card is not None:
            return existing_classifier(config, self.preparation)
        return open_classifier(self.folder / name)

    def place(self, name: str) -> Path:
        """Folder of a generator.

        Raises
        ------
        DataError
            If there is none of the name.
        """
        if name not in self.names:
            raise DataError(
                f"{self.folder}: no generator {name!r}{nearest(name, self.names)}; "
                f"there are {', '.join(self.names)}"
            )
        return self.folder / "generators" / name

    def generator(self, name: str) -> Generator:
        """Open a generator, in evaluation mode, on the CPU."""
        return open_generator(self.place(name))

    def about(self, name: str) -> Mapping[str, Any]:
        """Record of a generator's training."""
        path = self.place(name) / RECORD_OF_ONE
        return dict(json.loads(path.read_text(encoding="utf-8")))

    def sha256_of(self, name: str) -> str:
        """Hash of the weights of a generator, as its training recorded it."""
        return str(self.about(name)["sha256"])

    def threshold(self, name: str) -> float | None:
        """Threshold of the change tuned on the validation slices; None without truth there."""
        path = self.place(name) / THRESHOLD
        found: float | None = json.loads(path.read_text(encoding="utf-8"))["threshold"]
        return found

    def logs(self) -> dict[str, pd.DataFrame]:
        """Read the log of every training, by what was trained."""
        config = self.config
        places = {
            name: self.folder / name
            for name, part in (("classifier", config.classifier), ("judge", config.judge))
            if part is not None and part.card is None
        }
        places |= {name: self.place(name) for name in self.names}
        return {
            name: pd.read_csv(place / "log.csv")
            for name, place in places.items()
            if (place / "log.csv").is_file()
        }


def open_run(folder: Path | str) -> Run:
    """Open a run that was trained.

    Raises
    ------
    DataError
        If there is none, its training has not ended, or its parts do not belong together: a
        model was changed since.
    """
    folder = Path(folder)
    if not (folder / CONFIG).is_file():
        raise DataError(
            f"{folder}: no run there ({CONFIG} is missing); voxplain counterfactual train makes one"
        )
    run = Run(folder, read_config(str(folder / CONFIG)))
    missing = [name for name in run.names if not (run.place(name) / THRESHOLD).is_file()]
    if missing or not (folder / RECORD).is_file():
        what = f"without {', '.join(missing)}" if missing else "without its record"
        raise DataError(
            f"{folder}: the training has not ended ({what}); the same voxplain counterfactual "
            "train command continues it"
        )
    faults = _foreign(run)
    if faults:
        raise DataError(
            f"{all_faults(f'{folder}: parts do not belong together', faults)}\nput the models "
            "back, or train the run anew with --fresh"
        )
    return run


def model_sha256(folder: str) -> str:
    """Hash of a model's weights and of its preparation."""
    model = load_model(folder)
    if not isinstance(model, Model):
        return model.sha256
    about = {"weights": model.info.sha256, "preparation": dict(model.describe_preparation())}
    return sha256_of(about)


def _foreign(run: Run) -> list[str]:
    """Say which parts are not those that the run was trained with."""
    data, recorded = run.about_data["identity"], run.about_classifiers
    found = {"classifier": run.classifier().sha256}
    judge = run.judge()
    if judge is not None:
        found["judge"] = judge.sha256
    faults = [
        f"{name} was another one in training: its weights have the hash {sha256[:12]}, not "
        f"{recorded[name]['sha256'][:12]}"
        for name, sha256 in found.items()
        if recorded[name]["sha256"] != sha256
    ]
    model = run.preparation.model
    if model is not None and model_sha256(model) != data.get(MODEL):
        faults.append(f"{model}, which prepares the images, was changed since")
    wanted = {**data, "classifier": recorded["classifier"]["sha256"]}
    for name in run.names:
        identity = run.about(name)["identity"]
        other = " and ".join(key for key in wanted if identity.get(key) != wanted[key])
        if other:
            faults.append(f"generator {name} was trained with other {other}")
    return faults


def sha256_of(values: Mapping[str, Any]) -> str:
    """Hash of plain values."""
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def device_of(text: str) -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    from voxplain.inference.compute import Compute

    return Compute(device=text).torch_device()
