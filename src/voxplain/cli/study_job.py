"""A study as the command line asks for it: read, priced, run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import typer

from voxplain.attribution.words import key_values
from voxplain.cli.faults import going_on
from voxplain.cli.study_summary import print_end, print_estimate, tasks_bar
from voxplain.engine.capacity import estimate_study
from voxplain.engine.cluster import Cluster
from voxplain.engine.run import Here, Pool, run_study, state_of
from voxplain.engine.study_file import STUDY_FILE, StudyFile
from voxplain.errors import DataError, ModelError
from voxplain.models.load import TOTALSEG
from voxplain.records.unfinished import PLAN_FILE, plan_digest
from voxplain.space.write import atomic_file
from voxplain.study.store import Store


def study_of(
    file: Path | None, *, models: Sequence[str], data: Path | None, methods: Sequence[str],
    masks: Sequence[str], model_settings: Sequence[str], **settings: Any,
) -> StudyFile:  # fmt: skip
    """Put a file and options together; what an option says is taken from it.

    Raises
    ------
    DataError
        If there is neither a file nor models and data, or a value is wrong.
    """
    own = key_values(model_settings, "--model-set")
    changes = {key: value for key, value in settings.items() if value not in (None, ())}
    changes = {key: list(v) if isinstance(v, tuple) else v for key, v in changes.items()}
    if models:
        changes["models"] = {
            label: {"place": place, "settings": own} for label, place in _places(models).items()
        }
    if data is not None:
        changes["data"] = str(data)
    words = [one.strip() for text in methods for one in text.split(",") if one.strip()]
    if words:
        changes["methods"] = words
    if masks:
        changes["masks"] = key_values(masks, "--mask")
    if file is not None:
        return StudyFile.read(file, changes)
    missing = [option for option in ("models", "data") if option not in changes]
    if missing:
        raise DataError(
            "a study needs --model and --data, or a file STUDY.yaml; missing: "
            f"{', '.join({'models': '--model', 'data': '--data'}[one] for one in missing)}"
        )
    return StudyFile.of(changes)


def again(folder: Path) -> StudyFile:
    """Read the settings that a study was run with.

    Raises
    ------
    RecordError
        If the folder holds no study.
    DataError
        If it was imported, and so has none.
    """
    store = Store(folder)
    if not (store.folder / STUDY_FILE).is_file():
        raise DataError(f"{folder} was imported from a table; there is nothing to run again")
    return StudyFile.read(store.folder / STUDY_FILE)


def print_price(
    asked: StudyFile, out: Path, workers: int, scheduler: str | None, *, trust_code: bool
) -> None:
    """Tell passes, hours and storage of what is left of a study."""
    if scheduler is not None:
        raise DataError(
            "--dry-run times this machine and does not ask a cluster; give --workers N in place of "
            "--scheduler, N the workers of the cluster"
        )
    study = asked.open(trust_code)
    n_left = None
    if (out / PLAN_FILE).is_file():
        plan_digest(out, study.plan(), "results")  # of another study: refused now, not later
        n_left = state_of(study, Store(out)).n_left
    print_estimate(estimate_study(study, n_left=n_left, n_workers=workers))


def run_job(
    asked: StudyFile, out: Path, *, workers: int, scheduler: str | None,
    resources: Sequence[str], retry: bool, restart: bool, trust_code: bool, is_quiet: bool,
) -> None:  # fmt: skip
    """Run a study into its folder, or go on with it."""
    study = asked.open(trust_code)
    needed = _needed(resources)
    kept = going_on("finished cases are kept; the same command, without --restart, goes on")
    pools = _pool(workers, scheduler, needed, is_quiet)
    with kept, pools as pool, tasks_bar(is_quiet) as progress:
        if restart:  # only now: nothing is thrown away where the cluster does not answer
            Store.clear(out)
        Store.create(out, study.plan(), study.cases_frame())
        with atomic_file(out / STUDY_FILE) as temporary:
            temporary.write_text(asked.to_yaml(), encoding="utf-8")
        state = run_study(study, out, pool, retry=retry, progress=progress)
    if not is_quiet:
        print_end(state, Store(out))


@contextmanager
def _pool(
    workers: int, scheduler: str | None, resources: dict[str, float], is_quiet: bool
) -> Iterator[Pool]:
    """Where tasks run."""
    if scheduler is not None and workers > 1:
        raise DataError("give --workers or --scheduler, not both: a cluster has its own workers")
    if resources and scheduler is None:
        raise DataError("--resource is of the workers of a cluster; give --scheduler ADDRESS")
    if scheduler is not None:
        with Cluster.at(scheduler, resources or None, tell=None if is_quiet else _tell) as cluster:
            yield cluster
    elif workers > 1:
        with Cluster.local(workers) as cluster:
            yield cluster
    else:
        with nullcontext(Here()) as here:
            yield here


def _needed(texts: Sequence[str]) -> dict[str, float]:
    """Read what a worker must have, e.g. ``GPU=1``."""
    found = key_values(texts, "--resource")
    try:
        return {name: float(n) for name, n in found.items()}
    except ValueError:
        raise DataError(f"--resource takes NAME=NUMBER, e.g. GPU=1; got {found}") from None


def _tell(text: str) -> None:
    """Say what is waited for."""
    typer.echo(text, err=True)


def _places(texts: Sequence[str]) -> dict[str, str]:
    """Place of each model by its label: as given, or the last part of the folder's name."""
    found: dict[str, str] = {}
    for text in texts:
        label, equals, place = text.partition("=")
        if not equals:
            is_task = text.startswith(TOTALSEG)
            label, place = (text if is_task else Path(text).resolve().name), text
        if label in found:
            raise ModelError(
                f"two models are called {label}; name them: --model a={found[label]} --model "
                f"b={place}"
            )
        found[label] = place
    return found
