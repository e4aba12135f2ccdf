"""A study as YAML or options describe it, read and checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from voxplain.attribution.scores import Score
from voxplain.attribution.targets import Reduction, Target, named_classes
from voxplain.attribution.words import methods_of
from voxplain.data import read_data
from voxplain.data.case import Case
from voxplain.engine.study import ModelPlace, Study
from voxplain.engine.work import sha256_of, study_names
from voxplain.errors import DataError, LabelError, ModelError, TargetError, all_faults
from voxplain.inference.compute import Compute, Precision
from voxplain.models.card_file import sentences
from voxplain.models.load import TOTALSEG
from voxplain.models.model import Model
from voxplain.models.parts import Parts
from voxplain.space.labelmap import nearest

STUDY_FILE = "study.yaml"


class ModelEntry(BaseModel):
    """A model of a study.

    Parameters
    ----------
    place
        Folder, or ``totalseg:TASK``.
    settings
        See `voxplain.load_model`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    place: str
    settings: dict[str, str] = Field(default_factory=dict)


class StudyFile(BaseModel):
    """What ``study.yaml`` holds; paths are relative to it.

    Parameters
    ----------
    models
        By label: a place, or a place and settings.
    data
        Folder, datalist or manifest; see ``voxplain data``.
    layout
        Where it is not recognised.
    split
        Cases of this split only; default: ``test`` where the data has one, else all.
    n_cases
        At most so many, the first ones.
    methods
        Texts ``NAME[:KEY=VALUE]…``.
    targets, score, reduction
        See ``voxplain explain``.
    masks
        Further regions by name: files with ``{case}`` in their name.
    seed, device, precision, batch_size, checkpointing
        See ``voxplain explain``.
    planes
        Whether small pictures of each case are kept for the report.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    models: dict[str, ModelEntry] = Field(min_length=1)
    data: str
    layout: str | None = None
    split: str | None = None
    n_cases: int | None = Field(default=None, ge=1)
    methods: list[str] = Field(default=["smoothgrad:n=8"], min_length=1)
    targets: list[str] = Field(default=["all"], min_length=1)
    score: Score = "logit"
    reduction: Reduction = "sum"
    masks: dict[str, str] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)
    device: str = "auto"
    precision: Precision = "float32"
    batch_size: int | None = Field(default=None, ge=1)
    checkpointing: bool = False
    planes: bool = True

    @field_validator("models", mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """Take ``label: folder`` for ``label: {place: folder}``."""
        if not isinstance(value, Mapping):
            return value
        return {k: {"place": v} if isinstance(v, str) else v for k, v in value.items()}

    @classmethod
    def read(cls, path: Path | str, changes: Mapping[str, Any] | None = None) -> StudyFile:
        """Read YAML, with some values changed.

        Raises
        ------
        DataError
            If there is no such file, it is no YAML, or a value is wrong; every fault at once.
        """
        path = Path(path)
        try:
            raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{path} cannot be read: {error}") from None
        except yaml.YAMLError as error:
            raise DataError(f"{path}: not valid YAML: {error}") from None
        if not isinstance(raw, dict):
            raise DataError(f"{path}: a study is a mapping (models: …, data: …)")
        return cls.of({**_beside(raw, path.parent), **(changes or {})}, str(path))

    @classmethod
    def of(cls, values: Mapping[str, Any], where: str = "study") -> StudyFile:
        """Take values, with their faults in plain words.

        Raises
        ------
        DataError
            If a value is wrong or unknown.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise DataError(all_faults(where, sentences(error))) from None

    def to_yaml(self) -> str:
        """Text that `read` reads back, with absolute paths."""
        values = _beside(self.model_dump(mode="json", exclude_defaults=True), Path.cwd())
        return yaml.safe_dump(values, sort_keys=False, allow_unicode=True, width=88)

    def open(self, trust_code: bool = False) -> Study:
        """Load the models and lists of cases; images come when it is their turn.

        All paths become absolute, for workers run in other folders.

        Raises
        ------
        LabelError
            If a mask's pattern fits no case at all.
        VoxplainError
            If something is missing, unknown or does not fit.
        """
        methods = methods_of(self.methods, "methods")
        raw = {
            "data": self.data,
            "masks": self.masks,
            "models": {label: entry.place for label, entry in self.models.items()},
        }
        placed = _beside(raw, Path.cwd())
        cohort = read_data(placed["data"], self.layout)
        cases = [_absolute(case) for case in cohort.chosen(self.split, self.n_cases)]
        places = {
            label: ModelPlace(placed["models"][label], entry.settings, trust_code)
            for label, entry in self.models.items()
        }
        models = {label: place.load() for label, place in places.items()}
        _check_alike(models)
        answers, regions = study_names(models)
        study = Study(
            models=places, cases=cases, methods=methods, targets=self.targets, score=self.score,
            reduction=self.reduction, labels=cohort.classes, masks=placed["masks"], seed=self.seed,
            compute=Compute(
                device=self.device, precision=self.precision, batch_size=self.batch_size,
                checkpointing=self.checkpointing,
            ),
            sha256={label: sha256_of(model) for label, model in models.items()},
            class_names=answers, region_names=regions, keep_planes=self.planes,
        )  # fmt: skip
        for label, model in models.items():
            _check_classes(label, study.targets_of(model.answers), model.answers)
        _check_masks(study)
        return study


def _check_classes(label: str, targets: Sequence[Target], answers: Sequence[str]) -> None:
    """Refuse a class that a model does not have before any case is read."""
    for target in targets:
        for name in named_classes(target):
            if name not in answers:
                raise TargetError(f"{label} has no class {name!r}{nearest(name, answers)}")


def _check_masks(study: Study) -> None:
    """Refuse a pattern that fits no case: it is mistyped, and every region would be empty."""
    found = {name for case in study.cases for name in study.masks_there(case)}
    for name, pattern in study.masks.items():
        if name not in found:
            expected = study.mask_files(study.cases[0])[name]
            raise LabelError(
                f"mask {name!r}: no case has a file {pattern}; the first one looked for is "
                f"{expected}"
            )


def _absolute(case: Case) -> Case:
    """Case with files that do not depend on where a program runs."""
    labels: Path | dict[str, Path] | None
    if isinstance(case.labels, Mapping):
        labels = {name: file.absolute() for name, file in case.labels.items()}
    else:
        labels = None if case.labels is None else case.labels.absolute()
    return replace(case, images=tuple(file.absolute() for file in case.images), labels=labels)


def _check_alike(models: Mapping[str, Model | Parts]) -> None:
    """Refuse a classifier beside a segmentation: their regions are not the same thing."""
    kinds = {
        label: "segmentation" if isinstance(model, Parts) else model.info.kind
        for label, model in models.items()
    }
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"{label} is a {kind} model" for label, kind in kinds.items())
        raise ModelError(f"models of one study are of one kind: {told}; make two studies")


def _beside(raw: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Values with paths that do not depend on where the program runs."""
    values = dict(raw)

    def placed(text: Any) -> Any:
        is_path = isinstance(text, str) and not text.startswith(TOTALSEG)
        return str((folder / text).resolve()) if is_path else text

    if "data" in values:
        values["data"] = placed(values["data"])
    if isinstance(values.get("models"), Mapping):
        values["models"] = {
            label: {**entry, "place": placed(entry.get("place"))}
            if isinstance(entry, Mapping)
            else placed(entry)
            for label, entry in values["models"].items()
        }
    if isinstance(values.get("masks"), Mapping):
        values["masks"] = {name: placed(text) for name, text in values["masks"].items()}
    return values
