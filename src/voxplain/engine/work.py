"""One task of a study: a case by a model and a method, wherever it runs."""

from __future__ import annotations

import functools
import os
import socket
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from voxplain import __version__
from voxplain.attribution.run import explain
from voxplain.data.case import Case, read_masks
from voxplain.engine.planes import planes_of
from voxplain.engine.study import ModelPlace, Study
from voxplain.errors import DataError, ModelError, VoxplainError
from voxplain.models.model import Model
from voxplain.models.parts import Parts
from voxplain.records.explanation import Explanation
from voxplain.regions.overlap import overlap
from voxplain.space.grid import Grid
from voxplain.space.labelmap import LabelMap
from voxplain.study.store import CLASS_COLUMNS, CaseResult, done_run, failed_run


@dataclass(frozen=True)
class Task:
    """A case by a model and a method.

    Parameters
    ----------
    case, model, method
        The case, and labels of the study.
    stamp
        Of the case's files.
    masks
        Names of the study's masks whose file the case has, as the driver saw it.
    """

    case: Case
    model: str
    method: str
    stamp: str
    masks: tuple[str, ...]

    @property
    def key(self) -> tuple[str, str, str]:
        """Model, method and case."""
        return self.model, self.method, self.case.name


def run_task(study: Study, task: Task) -> CaseResult:
    """Explain one case; a fault of the case becomes a result that tells it.

    Parameters
    ----------
    study
        What is wanted; its list of cases is not needed.
    task
        What is to be done.

    Returns
    -------
    CaseResult
        Region sums, agreement with true labels, and what it cost; or the reason of failure.

    Raises
    ------
    ModelError
        If the model is another one than the study's: no case can be explained then.
    """
    start = time.perf_counter()
    model = _model(study, task.model)
    known = {
        "stamp": task.stamp,
        "worker": f"{socket.gethostname()}:{os.getpid()}",
        "version": __version__,
        "created": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
    names = task.case.name, task.model, task.method
    try:
        result, classes, planes = _explain(study, task, model)
    except Exception as error:  # one odd case must not stop ten thousand others: it is told
        seconds = time.perf_counter() - start
        return CaseResult(failed_run(*names, _reason(error), **known, seconds=seconds))
    cost = result.provenance.cost
    run = done_run(
        *names,
        **known,
        image_sha256=result.provenance.image_sha256,
        codes=" ".join(sorted({finding.code for finding in result.findings})),
        n_forward=cost.n_forward,
        n_backward=cost.n_backward,
        seconds=time.perf_counter() - start,
        peak_memory_bytes=cost.peak_memory_bytes,
    )
    regions = result.table.frame.drop(columns="share_error", errors="ignore")
    regions = regions.replace({"target": study.names_of(model.answers)})
    labels = {"case": names[0], "model": names[1], "method": names[2]}
    return CaseResult(
        run, regions.assign(**labels), classes.assign(**labels)[[*CLASS_COLUMNS]], planes
    )


def _reason(error: Exception) -> str:
    """Tell in a line why a case failed."""
    if isinstance(error, VoxplainError):
        return f"{type(error).__name__}: {error}"
    if isinstance(error, MemoryError):
        return "MemoryError: not enough memory; give a smaller --batch-size or fewer --workers"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return (
        f"unexpected {type(error).__name__}: {error} ({Path(last.filename).name}, line "
        f"{last.lineno}); a fault of voxplain or of the model's code: please report it"
    )


def _explain(
    study: Study, task: Task, model: Model | Parts
) -> tuple[Explanation, pd.DataFrame, dict[str, NDArray[Any]]]:
    first = model.models[0] if isinstance(model, Parts) else model
    image = task.case.read_image(first.info.channel_names)
    truth = None
    if task.case.labels is not None:
        truth = task.case.read_labels(study.labels or None)
    result = explain(
        model,
        image,
        study.targets_of(model.answers),
        study.methods[task.method],
        extra=_masks(study, task, image.grid),
        keep=False,
        seed=study.seed,
        compute=study.compute,
    )
    planes = planes_of(image, result.prediction) if study.keep_planes else {}
    return result, _classes(result, truth), planes


def _masks(study: Study, task: Task, grid: Grid) -> LabelMap | None:
    """Extra regions of a case, empty where it has no file; None if the study has none."""
    if not study.masks:
        return None
    known = study.mask_files(task.case)
    files = {name: known[name] for name in task.masks}
    for name, file in files.items():
        if not file.exists():
            raise DataError(
                f"mask {name!r}: {file} was there when the case was sent, and "
                f"{socket.gethostname()} does not see it; the paths of data are the same on "
                "every machine (a shared file system)"
            )
    names = dict(enumerate(study.masks, 1))
    if files:
        return read_masks(files, names)
    return LabelMap(np.zeros((1, *grid.shape), np.uint8), grid, names)


def _classes(result: Explanation, truth: LabelMap | None) -> pd.DataFrame:
    """Tabulate what the model says, and how true it is."""
    if result.classes:
        return pd.DataFrame(
            [{"class": one.name, "probability": one.probability} for one in result.classes]
        ).reindex(columns=[*CLASS_COLUMNS])
    if result.prediction is None or truth is None:
        return pd.DataFrame(columns=[*CLASS_COLUMNS])
    return overlap(result.prediction, truth).reset_index().reindex(columns=[*CLASS_COLUMNS])


def _model(study: Study, label: str) -> Model | Parts:
    place = study.models[label]
    model = _loaded(place.place, tuple(sorted(place.settings.items())), place.trust_code)
    found = sha256_of(model)
    if found != study.sha256[label]:
        raise ModelError(
            f"{label}: the weights in {place.place} are not those that the study began with "
            f"({found[:12]}… against {study.sha256[label][:12]}…); bring them back, or start "
            "another study with --out"
        )
    return model


@functools.lru_cache(maxsize=4)
def _loaded(place: str, settings: tuple[tuple[str, str], ...], trust_code: bool) -> Model | Parts:
    """Load a model once in each process."""
    return ModelPlace(place, dict(settings), trust_code).load()


def sha256_of(model: Model | Parts) -> str:
    """Hash of the weights."""
    return model.sha256 if isinstance(model, Parts) else model.info.sha256


def study_names(models: Mapping[str, Model | Parts]) -> tuple[list[str], list[str]]:
    """Names of the answers and of the regions of models, each once, in their order."""
    answers = [name for model in models.values() for name in model.answers]
    regions = [
        name
        for model in models.values()
        for name in (model.class_names if isinstance(model, Parts) else model.info.class_names)
    ]
    return list(dict.fromkeys(answers)), list(dict.fromkeys(regions))
