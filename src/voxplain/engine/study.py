"""What a study is asked: models, cases, methods, targets and regions; plain and picklable."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.attribution.method import Method, settings_of
from voxplain.attribution.parse import targets_of
from voxplain.attribution.scores import Score
from voxplain.attribution.targets import Reduction, Target
from voxplain.data.case import Case
from voxplain.data.stamp import stamp
from voxplain.errors import DataError, LabelError, MethodError
from voxplain.inference.compute import Compute
from voxplain.models.load import load_model
from voxplain.models.model import Model
from voxplain.models.parts import Parts
from voxplain.space.labelmap import BACKGROUND
from voxplain.space.read import NAMES_FILE

CASE = "{case}"


@dataclass(frozen=True)
class ModelPlace:
    """Where a model lies and how it is loaded.

    Parameters
    ----------
    place
        Folder, or ``totalseg:TASK``.
    settings
        See `voxplain.load_model`.
    trust_code
        Whether code that comes with it may run.
    """

    place: str
    settings: Mapping[str, str] = field(default_factory=dict)
    trust_code: bool = False

    def load(self) -> Model | Parts:
        """Load it."""
        return load_model(self.place, trust_code=self.trust_code, **self.settings)


@dataclass(frozen=True)
class Study:
    """Everything that decides the results of a study; can be sent to another machine.

    Parameters
    ----------
    models
        By label.
    cases
        In order.
    methods
        By label.
    targets, score, reduction
        See `voxplain.attribution.parse`; the same for every model.
    labels
        Name of each value of true label maps; empty: from the files.
    masks
        Further regions by name: pattern of a mask's file with ``{case}`` in it. A case without
        such a file has an empty region.
    region_names, class_names
        Of the models, in order: of their predicted regions, and of their answers.
    seed, compute
        See `voxplain.attribution.explain`.
    sha256
        Hash of each model's weights, by label.
    keep_planes
        Whether three small pictures of each case are kept for the report.

    Raises
    ------
    DataError
        If there is no case, or two have one name.
    LabelError
        If a mask's pattern does not name the case, or has the name of a class.
    MethodError
        If there is no method.
    """

    models: Mapping[str, ModelPlace]
    cases: Sequence[Case]
    methods: Mapping[str, Method]
    targets: Sequence[str] = ("all",)
    score: Score = "logit"
    reduction: Reduction = "sum"
    labels: Mapping[int, str] = field(default_factory=dict)
    masks: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    compute: Compute = field(default_factory=Compute)
    sha256: Mapping[str, str] = field(default_factory=dict)
    class_names: Sequence[str] = ()
    region_names: Sequence[str] = ()
    keep_planes: bool = True

    def __post_init__(self) -> None:
        names = [case.name for case in self.cases]
        if not names:
            raise DataError("a study needs cases; give other data, or another split")
        if not self.methods:
            raise MethodError("a study needs a method, e.g. smoothgrad:n=8")
        twice = sorted(name for name, n in Counter(names).items() if n > 1)
        if twice:
            raise DataError(f"cases of one name: {', '.join(twice)}; rename them")
        for name, pattern in self.masks.items():
            if CASE not in pattern:
                raise LabelError(
                    f"mask {name!r}: its files need {CASE} in their name, e.g. "
                    f"masks/{CASE}_{name}.nii.gz; got {pattern!r}"
                )
            if name in self.region_names or name == BACKGROUND:
                raise LabelError(f"mask {name!r} has the name of a class; choose another")

    def plan(self) -> dict[str, Any]:
        """Everything that decides a result but the cases, as plain values."""
        return {
            "models": {label: self._told(label) for label in self.models},
            "methods": {
                label: {"method": one.name, **settings_of(one)}
                for label, one in self.methods.items()
            },
            "targets": [*self.names_of(self.class_names).values()],
            "asked": list(self.targets),
            "score": self.score,
            "reduction": self.reduction,
            "labels": {str(label): name for label, name in sorted(self.labels.items())},
            "regions": [*self.region_names, *self.masks],
            "extra_regions": list(self.masks),
            "seed": self.seed,
            "compute": {
                key: value
                for key, value in self.compute.to_dict().items()
                if key not in ("batch_size", "checkpointing")  # decide no result
            },
        }

    def cases_frame(self) -> pd.DataFrame:
        """Tabulate the cases: index ``case``, ``patient``, split and metadata."""
        rows = [
            {
                "case": case.name,
                "patient": case.patient or case.name,
                **({"split": case.split} if case.split else {}),
                **case.metadata,
            }
            for case in self.cases
        ]
        frame = pd.DataFrame(rows).set_index("case")
        for column in frame:
            kinds = {isinstance(v, str) for v in frame[column] if not pd.isna(v)}
            if len(kinds) > 1:  # Parquet columns are of one type
                frame[column] = [v if pd.isna(v) else str(v) for v in frame[column]]
        return frame

    def targets_of(self, answers: Sequence[str]) -> list[Target]:
        """Targets of a model with these answers."""
        return targets_of(
            list(self.targets), tuple(answers), score=self.score, reduction=self.reduction
        )

    def names_of(self, answers: Sequence[str]) -> dict[str, str]:
        """Name in tables of each target: without score and reduction, which are the study's.

        So that the target ``liver[margin]`` is about the class and the region ``liver``.
        """
        plain = targets_of(list(self.targets), tuple(answers))
        return {
            own.name: one.name for own, one in zip(self.targets_of(answers), plain, strict=True)
        }

    def stamp(self, case: Case) -> str:
        """Short hash that tells a case's files from changed ones."""
        files = [*case.images, *case.label_files, *self.mask_files(case).values()]
        names: list[str] = []
        if isinstance(case.labels, Mapping):
            names = list(case.labels)
        elif case.labels is not None and not self.labels:
            files.append(case.labels.with_name(NAMES_FILE))
        told = json.dumps([stamp(files), case.patient, names])
        return hashlib.sha256(told.encode()).hexdigest()[:16]

    def mask_files(self, case: Case) -> dict[str, Path]:
        """File of each mask of a case, whether it is there or not."""
        return {
            name: Path(pattern.replace(CASE, case.name)) for name, pattern in self.masks.items()
        }

    def masks_there(self, case: Case) -> tuple[str, ...]:
        """Names of the masks whose file a case has."""
        return tuple(name for name, file in self.mask_files(case).items() if file.exists())

    def _told(self, label: str) -> dict[str, Any]:
        place = self.models[label]
        known = asdict(place)
        # the same weights lie elsewhere on another machine
        return {"sha256": self.sha256[label], "settings": known["settings"]}
