"""What a study will cost, told before it is spent."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from voxplain.attribution.estimate import Estimate
from voxplain.attribution.method import Method
from voxplain.attribution.run import estimate
from voxplain.data.case import Case
from voxplain.engine.connection import threads_of
from voxplain.engine.planes import planes_of
from voxplain.engine.run import SLOW_BLOCKS, SLOW_S, most_blocks
from voxplain.engine.study import Study
from voxplain.errors import DataError, MethodError, VoxplainError
from voxplain.models.model import Model
from voxplain.models.parts import Parts
from voxplain.records.region_table import COLUMNS
from voxplain.study.store import CLASS_COLUMNS, CaseResult, Store, done_run

N_READ = 3
_BLOCK = 20


@dataclass(frozen=True)
class StudyEstimate:
    """Cost of a study; a task is a case by a model and a method.

    Parameters
    ----------
    n_tasks
        Those that are left.
    n_workers
        Processes that share them.
    n_forward, n_backward
        Passes of a task, mean.
    is_upper_bound
        Whether fewer passes may do; see `voxplain.attribution.Estimate`.
    seconds
        Of a task in one worker, mean; reading the case included.
    load_s
        To load the models, once in each worker.
    n_blocks
        Files a table, at most.
    n_bytes
        Of a task on disk, mean, its part of the overhead of files included.
    memory_bytes
        Of one worker, at most; not the program itself.
    """

    n_tasks: int
    n_workers: int
    n_forward: float
    n_backward: float
    is_upper_bound: bool
    seconds: float
    load_s: float
    n_blocks: int
    n_bytes: float
    memory_bytes: int

    @property
    def worker_s(self) -> float:
        """Seconds of work over all workers: n_tasks × seconds + n_workers × load_s."""
        return self.n_tasks * self.seconds + self._n_busy * self.load_s

    @property
    def total_s(self) -> float:
        """Seconds until the end: load_s + ceil(n_tasks / n_workers) × seconds."""
        if not self.n_tasks:
            return 0.0
        return self.load_s + math.ceil(self.n_tasks / self.n_workers) * self.seconds

    @property
    def total_bytes(self) -> float:
        """Bytes on disk."""
        return self.n_tasks * self.n_bytes

    @property
    def _n_busy(self) -> int:
        return min(self.n_workers, self.n_tasks)


def estimate_study(
    study: Study, *, n_left: int | None = None, n_workers: int = 1, n_read: int = N_READ
) -> StudyEstimate:
    """Tell what a study will cost from a few of its cases.

    The cases lie evenly over the list. Each is read, and a window of each model timed in this
    process; storage is measured on a block of made-up rows.

    Parameters
    ----------
    study
        What is wanted.
    n_left
        Tasks that are left; default: all.
    n_workers
        Processes on a machine like this one. Several share its processors, as
        `voxplain.engine.cluster.Cluster.local` has it: a window is timed with
        max(1, processors // n_workers) torch threads, one worker with those that are set.
    n_read
        Cases to read at most; those that cannot be are passed over.

    Returns
    -------
    StudyEstimate
        Passes, time, storage and memory.

    Raises
    ------
    DataError
        If none of these cases can be read.
    MethodError
        If a number is out of range.
    ModelError
        If a model cannot be loaded.

    Notes
    -----
    Cost: `n_read` times the models times (a prediction, where it takes less than 20 s, and two
    windows for each method). Workers beside each other also share the memory's and the disk's
    speed, which is not measured: many of them on one machine may take longer.
    """
    if n_workers < 1 or n_read < 1 or (n_left is not None and n_left < 0):
        raise MethodError(
            f"expected n_workers and n_read of 1 or more and n_left of 0 or more, got {n_workers}, "
            f"{n_read} and {n_left}"
        )
    start = time.perf_counter()
    models = {label: place.load() for label, place in study.models.items()}
    load_s = time.perf_counter() - start
    places = np.unique(np.linspace(0, len(study.cases) - 1, n_read).round().astype(int))
    found: list[_Timed] = []
    faults = []
    with _threads_of_one(n_workers):
        for case in (study.cases[i] for i in places):
            for model in models.values():
                for method in study.methods.values():
                    try:
                        found.append(_timed(study, case, model, method))
                    except VoxplainError as error:
                        faults.append(f"{case.name}: {error}")
    if not found:
        raise DataError(f"no case could be timed: {faults[0]}; run voxplain data check")
    n_each = len(models) * len(study.methods)
    n_tasks = len(study.cases) * n_each if n_left is None else n_left
    costs = [one.cost for one in found]
    seconds = float(np.mean([one.reading_s + one.cost.seconds for one in found]))
    a_task, a_block = _bytes(study, models, [one.planes for one in found])
    n_blocks = n_each * most_blocks(n_tasks * seconds / n_workers)
    n_blocks = min(n_tasks, n_blocks + (SLOW_BLOCKS if seconds > SLOW_S else 0))
    return StudyEstimate(
        n_tasks=n_tasks,
        n_workers=n_workers,
        n_forward=float(np.mean([cost.n_forward for cost in costs])),
        n_backward=float(np.mean([cost.n_backward for cost in costs])),
        is_upper_bound=any(cost.is_upper_bound for cost in costs),
        seconds=seconds,
        load_s=load_s,
        n_blocks=n_blocks,
        n_bytes=a_task + a_block * n_blocks / max(1, n_tasks),
        memory_bytes=max(cost.memory_bytes for cost in costs),
    )


@contextmanager
def _threads_of_one(n_workers: int) -> Iterator[None]:
    """Take as many torch threads as each of several workers of this machine has."""
    before = torch.get_num_threads()
    if n_workers > 1:
        torch.set_num_threads(threads_of(n_workers))
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, eq=False)
class _Timed:
    """A case that was read: how long that took, what explaining it will, and its planes."""

    reading_s: float
    cost: Estimate
    planes: Mapping[str, NDArray[Any]]


def _timed(study: Study, case: Case, model: Model | Parts, method: Method) -> _Timed:
    first = model.models[0] if isinstance(model, Parts) else model
    start = time.perf_counter()
    image = case.read_image(first.info.channel_names)
    truth = None if case.labels is None else case.read_labels(study.labels or None)
    # the true labels stand for the predicted ones, which have as many edges
    on_grid = truth if truth is not None and truth.grid.matches(image.grid) else None
    planes = planes_of(image, on_grid) if study.keep_planes else {}
    reading_s = time.perf_counter() - start
    cost = estimate(model, image, study.targets_of(model.answers), method, compute=study.compute)
    return _Timed(reading_s, cost, planes)


def _bytes(
    study: Study,
    models: Mapping[str, Model | Parts],
    planes: Sequence[Mapping[str, NDArray[Any]]],
) -> tuple[float, float]:
    """Bytes of a task, and of a block whatever is in it: from blocks of made-up results."""
    channels = [
        (model.models[0] if isinstance(model, Parts) else model).info.channel_names
        for model in models.values()
    ]
    targets = [*study.names_of(study.class_names).values()]
    regions = [*study.region_names, *study.masks]
    rng = np.random.default_rng(0)
    rows = [
        replace(
            _made_up(f"case_{i:06d}", targets, regions, channels[0], rng),
            planes=planes[i % len(planes)],
        )
        for i in range(_BLOCK)
    ]
    sizes = []
    for block in (rows[:1], rows):
        with tempfile.TemporaryDirectory() as folder:
            plan = {"targets": targets}
            store = Store.create(folder, plan, replace(study, cases=study.cases[:1]).cases_frame())
            before = _size(store.folder)
            store.add(block)
            sizes.append(_size(store.folder) - before)
    one, many = sizes
    a_task = (many - one) / (_BLOCK - 1)
    return a_task, max(0.0, one - a_task)


def _made_up(
    case: str,
    targets: Sequence[str],
    regions: Sequence[str],
    channels: Sequence[str],
    rng: np.random.Generator,
) -> CaseResult:
    """Make a result of the shape of the real one, with numbers that do not compress."""
    labels = {"case": case, "model": "model", "method": "method"}
    names = ("target", "region", "channel")
    index = pd.MultiIndex.from_product([targets, regions, channels], names=names)
    frame = index.to_frame(index=False).assign(**labels)
    for value in ("share", "mean", "positive", "negative"):
        frame[value] = rng.random(len(frame))
    # a region has as many voxels in every target
    n_voxels = dict(zip(regions, rng.integers(0, 10**6, len(regions)), strict=True))
    frame["n_voxels"] = frame["region"].map(n_voxels)
    classes = pd.DataFrame({"class": regions}).assign(**labels).reindex(columns=[*CLASS_COLUMNS])
    for column in ("dice", "iou", "n_predicted", "n_true"):
        classes[column] = rng.random(len(classes))
    run = done_run(
        case, "model", "method", stamp="0" * 16, image_sha256=rng.bytes(32).hex(),
        worker="a-host-name:123456", version="0.0.0", created=f"2026-01-01T00:00:00.{case[5:]}",
    )  # fmt: skip
    return CaseResult(run, frame[[*COLUMNS]], classes)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
