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
from voxplain.errors import DataError
from voxplain.space.labelmap import nearest

CONFIG = "config.yaml"
PREPARATION = "preparation.json"
DATA = "data.json"
RECORD = "record.json"
THRESHOLD = "threshold.json"


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
        """What a reader must know of the data."""
        return tuple(self.about_data["notes"])

    @cached_property
    def about_data(self) -> Mapping[str, Any]:
        """Counts of cases, patients and slices, and the hash of the data."""
        found: dict[str, Any] = json.loads((self.folder / DATA).read_text(encoding="utf-8"))
        return found

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

    def sha256_of(self, name: str) -> str:
        """Hash of the weights of a generator, as its training recorded it."""
        record = json.loads((self.place(name) / RECORD_OF_ONE).read_text(encoding="utf-8"))
        return str(record["sha256"])

    def threshold(self, name: str) -> float | None:
        """Threshold of the change tuned on the validation slices; None without truth there."""
        path = self.place(name) / THRESHOLD
        found: float | None = json.loads(path.read_text(encoding="utf-8"))["threshold"]
        return found

    def logs(self) -> dict[str, pd.DataFrame]:
        """Read the log of every training, by what was trained."""
        places = {"classifier": self.folder / "classifier", "judge": self.folder / "judge"}
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
        If there is none, or its training has not ended.
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
    return run


def sha256_of(values: Mapping[str, Any]) -> str:
    """Hash of plain values."""
    return sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def device_of(text: str) -> torch.device:
    """Return the device of ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
    from voxplain.inference.compute import Compute

    return Compute(device=text).torch_device()
