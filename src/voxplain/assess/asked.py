"""What an assessment is asked: models, cases, methods, targets and settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from voxplain.assess.average_mask import AverageMask
from voxplain.assess.case_scores import CaseScores, check_labels
from voxplain.assess.rows import ListedCase
from voxplain.assess.settings import AssessSettings
from voxplain.assess.subject import Subject
from voxplain.attribution.ask import ask
from voxplain.attribution.method import Method, settings_of
from voxplain.attribution.parse import targets_of
from voxplain.attribution.targets import Target, named_classes
from voxplain.errors import DataError, TargetError
from voxplain.inference.compute import Compute
from voxplain.inference.pipeline import Pipeline, open_pipeline
from voxplain.models.model import Model
from voxplain.records.unfinished import plan_digest
from voxplain.space.labelmap import nearest


@dataclass(frozen=True, eq=False)
class Asked:
    """Everything that decides an assessment.

    Parameters
    ----------
    models
        By their label.
    cases
        In order.
    methods
        By their label.
    targets
        Texts or targets, see `voxplain.attribution.parse`; the same for every model.
    settings
        What is measured.
    seed, compute
        See `voxplain.attribution.explain`.
    averages
        Mean training masks by target, for the baseline ``average_mask``.
    extra
        Hash of what else decides the result, e.g. a table of boxes.

    Raises
    ------
    MethodError
        If there is no method, or a label is taken.
    TargetError
        If a model has no class of a target's name.
    DataError
        If there is no case, or two have one name.
    """

    models: Mapping[str, Model]
    cases: Sequence[ListedCase]
    methods: Mapping[str, Method]
    targets: Sequence[str | Target]
    settings: AssessSettings
    seed: int = 0
    compute: Compute = field(default_factory=Compute)
    averages: Mapping[str, AverageMask] = field(default_factory=dict)
    extra: str = ""

    def __post_init__(self) -> None:
        check_labels(self.methods)
        names = [case.name for case in self.cases]
        if not names:
            raise DataError("there is no case to assess on; give other --data or --split")
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise DataError(f"cases of one name: {', '.join(twice)}; rename them")
        for label, model in self.models.items():
            for target in self.bound(model):
                for name in named_classes(target):
                    if name not in model.info.class_names:
                        hint = nearest(name, model.info.class_names)
                        raise TargetError(f"{label} has no class {name!r}{hint}")

    def case(self, name: str) -> ListedCase:
        """Case of a name."""
        return next(case for case in self.cases if case.name == name)

    @property
    def needs_kept(self) -> bool:
        """Whether maps are kept, to be compared between cases."""
        has_rival = self.settings.has("randomisation") or self.settings.has("agreement")
        return has_rival and len(self.cases) > 1

    @property
    def has_smooth(self) -> bool:
        """Whether maps are also averaged over noise, to be compared with those of a cascade."""
        return self.settings.n_smooth > 1 and (self.needs_kept or self.has_pairs)

    @property
    def has_pairs(self) -> bool:
        """Whether models are compared."""
        return self.settings.has("agreement") and len(self.models) > 1

    def is_shown(self, case: str) -> bool:
        """Whether planes of a case are kept for the report."""
        return case in [one.name for one in self.cases[: self.settings.n_pictures]]

    def bound(self, model: Model) -> list[Target]:
        """Targets of a model."""
        return targets_of(list(self.targets), model.answers)

    @contextmanager
    def open(self, model: Model, subject: Subject) -> Iterator[CaseScores]:
        """Open a case and model for scores; the model comes back unchanged."""
        with open_pipeline(model, subject.image, self.compute) as pipeline:
            yield self.scores_on(pipeline, model, subject)

    def scores_on(self, pipeline: Pipeline, model: Model, subject: Subject) -> CaseScores:
        """Ask about the targets on an open case and model."""
        targets = self.bound(model)
        question = ask(pipeline, subject.image, targets, None, self.seed)
        return CaseScores(question, targets, subject, self.settings, self.averages)

    def keys(self) -> list[tuple[str, ...]]:
        """Parts of the work, in an order in which each finds what it needs."""
        settings = self.settings
        keys: list[tuple[str, ...]] = []
        for case in self.cases:
            for label in self.models:
                keys.append(("scores", label, case.name))
                if settings.has("randomisation"):
                    keys += [
                        ("cascade", label, case.name, order, str(self.seed + k))
                        for order in settings.orders
                        for k in range(settings.n_randomisations)
                    ]
            if self.has_pairs:
                keys.append(("models", "", case.name))
        if self.needs_kept:
            keys += [("random pairs", label) for label in self.models]
        return keys

    def plan(self) -> dict[str, Any]:
        """Plain values that decide the result."""
        return {
            "models": {label: _told(model) for label, model in self.models.items()},
            "cases": [case.name for case in self.cases],
            "methods": {
                label: {"method": one.name, **settings_of(one)}
                for label, one in self.methods.items()
            },
            "targets": [str(target) for target in self.targets],
            "settings": self.settings.to_dict(),
            "seed": self.seed,
            "compute": self.compute.to_dict(),
        }

    def digest(self) -> str:
        """Hash of all that decides the result, the cases' files included."""
        return plan_digest(None, {**self.plan(), "also": self.extra, "files": self.stamps()}, "")

    def stamps(self) -> dict[str, str]:
        """Hashes of the cases' files and patients."""
        told = {one.name: f"{one.stamp} {one.patient}" for one in self.cases}
        return {name: hashlib.sha256(text.encode()).hexdigest() for name, text in told.items()}


def _told(model: Model) -> dict[str, Any]:
    """Tell what decides a model's output, beside the image."""
    window = model.info.window
    return {
        "sha256": model.info.sha256,
        "window": None if window is None else asdict(window),
        "n_views": model.n_views,
        "preprocessing": model.describe_preparation(),
    }
