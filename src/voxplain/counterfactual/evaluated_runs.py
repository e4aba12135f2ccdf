"""Trained runs compared with attribution methods, in tables and on a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd

from voxplain.counterfactual.classifier_training import RELIABILITY
from voxplain.counterfactual.config import Config
from voxplain.counterfactual.evaluation import evaluate
from voxplain.counterfactual.generator_training import Moment
from voxplain.counterfactual.run import Run, device_of, open_run, sha256_of
from voxplain.errors import DataError, RecordError
from voxplain.records.counterfactual_evaluation import (
    INDEX,
    Evaluation,
    pooled,
    read_evaluation,
    write_evaluation,
)
from voxplain.report.counterfactual_page import CONFIG, write_counterfactual_report
from voxplain.space.write import atomic_file
from voxplain.train.settings_file import checked, put_changes

FOLDER = "evaluation"
REPORT = "report.html"
POOLED = "runs.csv"
_ASKED = "asked"


def evaluate_runs(
    runs: Sequence[Path],
    out: Path,
    changes: Sequence[str] = (),
    *,
    device: str = "auto",
    progress: Callable[[Moment], None] | None = None,
) -> dict[str, Evaluation]:
    """Evaluate runs, write the tables of each, and one page about all.

    Parameters
    ----------
    runs
        Folders that `voxplain.counterfactual.training.train_run` wrote.
    out
        Gets ``report.html``; of one run also its tables, of several a folder each, and
        ``runs.csv``: means and spreads over runs.
    changes
        Texts ``evaluation.KEY=VALUE`` in place of what the configurations say.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    progress
        Called with a `Moment` after each slice and method.

    Returns
    -------
    dict
        Evaluation by the name of the run's folder.

    Raises
    ------
    DataError
        If a run is not there or not finished, or two have one name.
    TrainingError
        If a change is not one of the evaluation.

    Notes
    -----
    An evaluation that is already there, or in ``RUN/evaluation``, of the same run and settings,
    is kept.
    """
    names = [folder.resolve().name for folder in runs]
    if len(set(names)) < len(names):
        raise DataError(f"runs are told apart by the names of their folders, got {names}")
    opened = [_changed(open_run(folder), changes) for folder in runs]
    single = len(opened) == 1
    found = {
        name: _evaluation(run, out if single else out / name, name, device, progress)
        for name, run in zip(names, opened, strict=True)
    }
    if not single:
        with atomic_file(out / POOLED) as path:
            pooled(found).to_csv(path, index=False)
    first = opened[0]
    reliability = first.folder / "classifier" / RELIABILITY
    write_counterfactual_report(
        next(iter(found.values())) if single else found,
        out / REPORT,
        name=first.config.name,
        logs=first.logs(),
        calibration=pd.read_csv(reliability) if reliability.is_file() else None,
        notes=first.notes,
    )
    return found


def _changed(run: Run, changes: Sequence[str]) -> Run:
    foreign = [text for text in changes if not text.startswith("evaluation.")]
    if foreign:
        raise DataError(
            f"a trained run is evaluated otherwise by --set evaluation.KEY=VALUE; "
            f"{foreign[0]!r} is about its training"
        )
    values = put_changes(run.config.values(), changes)
    return replace(run, config=checked(Config, values, f"configuration of {run.folder}"))


def _evaluation(
    run: Run, place: Path, name: str, device: str, progress: Callable[[Moment], None] | None
) -> Evaluation:
    classifier, judge = run.classifier(), run.judge()
    generators = {label: run.generator(label) for label in run.names}
    asked = sha256_of(
        {
            "evaluation": run.config.evaluation.model_dump(mode="json"),
            "data": run.about_data,
            "classifiers": [classifier.sha256, None if judge is None else judge.sha256],
            "generators": [run.sha256_of(label) for label in run.names],
        }
    )
    kept = _kept(place, asked)
    if kept is not None:
        return kept
    kept = _kept(run.folder / FOLDER, asked)  # where `train --evaluate` puts it
    if kept is not None:
        write_evaluation(kept, place)
        return kept

    def tell(method: str, done: int, n: int) -> None:
        if progress is not None:
            progress(Moment(f"{name}: {method}", done, n, {}))

    found = evaluate(
        run.config.evaluation,
        test=run.slices("test"),
        validation=run.slices("validation"),
        classifier=classifier,
        judge=judge,
        generators=generators,
        seed=run.config.seed,
        device=device_of(device),
        progress=tell,
    )
    about: dict[str, Any] = {
        **found.provenance,
        _ASKED: asked,
        CONFIG: run.config.values(),
        "data": run.about_data,
    }
    found = replace(found, provenance=about)
    write_evaluation(found, place)
    return found


def _kept(place: Path, asked: str) -> Evaluation | None:
    """Return what is already there, if it was asked in the same way."""
    if not (place / INDEX).is_file():
        return None
    try:
        found = read_evaluation(place)
    except RecordError:  # torn, or of another version: it is made anew and replaced
        return None
    return found if found.provenance.get(_ASKED) == asked else None
