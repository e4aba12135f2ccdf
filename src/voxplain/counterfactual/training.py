"""From a configuration and a cohort to a run: slices, classifiers, generators."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from voxplain.counterfactual.blobs import frozen
from voxplain.counterfactual.classifier import Classifier
from voxplain.counterfactual.classifier_training import (
    check_classifier,
    existing_classifier,
    open_classifier,
    train_classifier,
)
from voxplain.counterfactual.comparison import tuned_threshold
from voxplain.counterfactual.config import ClassifierConfig, Config
from voxplain.counterfactual.config_file import absolute, config_text
from voxplain.counterfactual.division import PARTS
from voxplain.counterfactual.draws import Draws
from voxplain.counterfactual.gather import gather
from voxplain.counterfactual.generator_training import Moment, train_generator
from voxplain.counterfactual.generators import learner_of, open_generator, precision_of
from voxplain.counterfactual.inpaint_mask import FOLDER, InpaintMaskGenerator, write_inpainter
from voxplain.counterfactual.interruption import asked_to_stop
from voxplain.counterfactual.kept_run import check_kept, check_place, check_trained, clear_run
from voxplain.counterfactual.mask import change
from voxplain.counterfactual.preparation import check_card
from voxplain.counterfactual.run import (
    CONFIG,
    DATA,
    MODEL,
    PREPARATION,
    RECORD,
    THRESHOLD,
    Run,
    device_of,
    model_sha256,
    sha256_of,
)
from voxplain.counterfactual.training_log import require_tensorboard
from voxplain.counterfactual.validity import repaired
from voxplain.data import Cohort
from voxplain.inference.compute import full_precision
from voxplain.models.card_file import CARD
from voxplain.records.provenance import package_versions
from voxplain.space.write import atomic_file
from voxplain.train.split import case_sha256

Progress = Callable[[Moment], None]


def train_run(
    config: Config,
    cohort: Cohort,
    out: Path | str,
    *,
    resume: bool = True,
    device: str = "auto",
    progress: Progress | None = None,
) -> Run:
    """Make the slices, train the classifiers and every generator, and tune thresholds.

    Parameters
    ----------
    config
        Every setting; see `voxplain.counterfactual.read_config`.
    cohort
        Images, and labels where the configuration needs them; see `voxplain.data.read_data`.
    out
        Folder of the run. What is finished in it is kept, what was interrupted goes on; on a CPU
        the weights are then those of an uninterrupted training, to the last bit.
    resume
        False begins anew.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    progress
        Called with a `Moment` after every step.

    Returns
    -------
    Run
        The folder, opened.

    Raises
    ------
    DataError
        If the data cannot be cut into slices as the configuration says.
    TrainingError
        If `out` holds another run, a class is missing, the classifier tells nothing, or a loss
        is not a number.
    OutputError
        If `out` is a file, or a folder with other files and no run.
    """
    return _Training(config, cohort, Path(out), resume, device, progress).run()


class _Training:
    def __init__(
        self, config: Config, cohort: Cohort, out: Path, resume: bool, device: str,
        progress: Progress | None,
    ) -> None:  # fmt: skip
        config = absolute(config)
        self.config, self.cohort, self.out = config, cohort, out
        self.resume, self.progress = resume, progress
        self.device = device_of(device)
        self.amp = precision_of(config.amp, self.device)
        self.folder = Run(out, config)
        self.began = time.perf_counter()

    def run(self) -> Run:
        config = self.config
        if config.tensorboard:
            require_tensorboard()
        check_place(self.out)
        self._check_cards()
        is_kept = self.resume and check_kept(self.out, config, self._identity)
        if is_kept:
            self._check_trained()
        # from here on the folder is changed, and finished again only with its record
        (self.out / RECORD).unlink(missing_ok=True)
        if is_kept:
            self._write_config()
        else:
            clear_run(self.out)
            self._write_slices()
        self.validation = self.folder.slices("validation")
        blobs = config.data.abnormal.synthetic
        self.source = Draws(self.folder.slices("train"), blobs, config.seed, self.device)
        classifier = self._classifier("classifier", config.classifier)
        told = {"classifier": self._quality(classifier)}
        if config.judge is not None:
            told["judge"] = self._quality(self._classifier("judge", config.judge))
        for name in config.generators:
            self._generator(name, classifier)
        self._write_json(
            RECORD,
            {
                "seconds": round(time.perf_counter() - self.began, 1),
                "device": str(self.device),
                "seed": config.seed,
                "classifiers": told,
                "versions": package_versions(),
            },
        )
        return self.folder

    def _check_cards(self) -> None:
        model = self.config.data.intensity.model
        named = {"classifier": self.config.classifier, "judge": self.config.judge}
        for name, one in named.items():
            if model is not None and one is not None and one.card is not None:
                check_card(one.card, model, f"{name}.card")

    def _write_slices(self) -> None:
        config, identity = self.config, self._identity
        place = self.out / "slices"
        self._tell("reading", 0, len(self.cohort))
        gathered = gather(
            self.cohort, config.data, config.seed, place,
            progress=lambda done, n: self._tell("reading", done, n),
        )  # fmt: skip
        counts: dict[str, Any] = {}
        for part in PARTS:
            slices = gathered.parts[part]
            if config.data.abnormal.synthetic is not None and part != "train":
                blobs = config.data.abnormal.synthetic
                slices = frozen(slices, blobs, config.seed, part, place / part)
            counts[part] = {
                "cases": gathered.n_cases[part],
                "patients": gathered.n_patients[part],
                "slices": len(slices),
                "abnormal": int(slices.labels.sum()),
            }
        gathered.preparation.write(self.out / PREPARATION)
        self._write_config()
        # last: a folder with it has all the others
        self._write_json(DATA, {"identity": identity, "parts": counts, "notes": gathered.notes})

    @cached_property
    def _identity(self) -> dict[str, str]:
        """Hash what slices depend on."""
        data = self.config.data.model_dump(mode="json")
        model = self.config.data.intensity.model
        return {
            "settings of the data": sha256_of({"data": data, "seed": self.config.seed}),
            "images": sha256_of({case.name: case_sha256(case) for case in self.cohort}),
            **({} if model is None else {MODEL: model_sha256(model)}),
        }

    def _identity_of(self, classifier: Classifier) -> dict[str, Any]:
        """Say what a generator depends on besides its own settings."""
        return {
            **self._identity,
            "classifier": classifier.sha256,
            "seed": self.config.seed,
            "amp": str(self.amp),
        }

    def _check_trained(self) -> None:
        """Refuse generators of another classifier or precision, before anything is changed."""
        is_trained = self.config.classifier.card is None
        if is_trained and not (self.out / "classifier" / CARD).is_file():
            return  # no generator was begun
        identity = self._identity_of(self.folder.classifier())
        for name in self.config.generators:
            check_trained(self.folder.place(name), identity)

    def _write_config(self) -> None:
        with atomic_file(self.out / CONFIG) as path:
            path.write_text(config_text(self.config), encoding="utf-8")

    def _write_json(self, name: str, values: Mapping[str, Any]) -> None:
        with atomic_file(self.out / name) as path:
            path.write_text(json.dumps(values, indent=2), encoding="utf-8")

    def _classifier(self, name: str, config: ClassifierConfig) -> Classifier:
        preparation = self.folder.preparation
        if config.card is None:
            train_classifier(
                config, self.source, self.validation, self.out / name, preparation,
                name=name, seed=self.config.seed, amp=self.config.amp, device=self.device,
                resume=self.resume, progress=self._steps(name),
            )  # fmt: skip
            classifier = open_classifier(self.out / name)
        else:
            classifier = existing_classifier(config, preparation)
        return classifier.to(self.device)

    def _quality(self, classifier: Classifier) -> dict[str, Any]:
        with full_precision():
            auroc = check_classifier(classifier, self.validation)
        return {"auroc": auroc, "sha256": classifier.sha256}

    def _generator(self, name: str, classifier: Classifier) -> None:
        config = self.config.generators[name]
        place = self.folder.place(name)
        learner = learner_of(
            config, classifier, self.source, self.config.data.size, self.config.seed,
            self.device, self.amp,
        )  # fmt: skip
        with asked_to_stop() as should_stop:
            train_generator(
                learner, config, self.validation, place, self._identity_of(classifier),
                resume=self.resume, progress=self._named(name), should_stop=should_stop,
                tensorboard=self.config.tensorboard,
            )  # fmt: skip
        generator = open_generator(place)
        if isinstance(generator, InpaintMaskGenerator) and config.kind == "inpaint-mask":
            about = self.folder.preparation
            write_inpainter(
                generator, config, place / FOLDER,
                {key: getattr(about, key) for key in ("plane", "low", "high", "pixel_mm", "size")},
                self.config.name,
            )  # fmt: skip
        self._tune(name)

    def _tune(self, name: str) -> None:
        """Write the threshold that fits the lesions of the validation slices best."""
        generator = open_generator(self.folder.place(name)).to(self.device)
        abnormal = self.validation.abnormal(self.config.evaluation.max_slices)
        threshold = None
        if abnormal.has_truth:
            known = abnormal.at(np.flatnonzero(abnormal.truth.any((1, 2))))
            with full_precision():
                found = repaired(generator, known.images, device=self.device)
            scores = change(known.images, found)[:, 0]
            post = self.config.evaluation.post_filter
            threshold = tuned_threshold(scores, known.truth, post)
        place = self.folder.place(name) / THRESHOLD
        self._write_json(str(place.relative_to(self.out)), {"threshold": threshold})

    def _tell(self, what: str, step: int, n_steps: int) -> None:
        if self.progress is not None:
            self.progress(Moment(what, step, n_steps, {}))

    def _steps(self, name: str) -> Callable[[int, int, float], None]:
        def tell(step: int, n: int, loss: float) -> None:
            if self.progress is not None:
                self.progress(Moment(name, step, n, {"total": loss}))

        return tell

    def _named(self, name: str) -> Progress | None:
        progress = self.progress
        if progress is None:
            return None
        return lambda now: progress(Moment(name, now.step, now.n_steps, now.terms))
