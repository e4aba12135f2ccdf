"""`run_study`: every case that is not done yet, somewhere, into the store."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from voxplain.engine.study import Study
from voxplain.engine.work import Task, run_task
from voxplain.study.store import DONE, FAILED, CaseResult, Store

FLUSH_S, LONGEST_S = 1.0, 300.0
FLUSH_PART = 0.01
FLUSH_CASES, FLUSH_ROWS = 500, 300_000
SLOW_S, SLOW_BLOCKS = 1.0, 20_000


@dataclass(frozen=True)
class State:
    """How far a study is.

    Parameters
    ----------
    n_done, n_failed, n_left
        Tasks: a case by a model and a method.
    """

    n_done: int
    n_failed: int
    n_left: int

    @property
    def n_tasks(self) -> int:
        """All of them."""
        return self.n_done + self.n_failed + self.n_left


Progress = Callable[[State], None]


class Pool(Protocol):
    """Where tasks run."""

    def results(self, study: Study, tasks: Iterable[Task]) -> Iterator[CaseResult | None]:
        """Run tasks, in any order; take no more of them than are needed to keep busy.

        Yields None where nothing has come for a second, so that what came can be written.
        """


class Here:
    """Tasks run one after the other in this process.

    Parameters
    ----------
    work
        What is done for each.
    """

    def __init__(self, work: Callable[[Study, Task], CaseResult] = run_task) -> None:
        self._work = work

    def results(self, study: Study, tasks: Iterable[Task]) -> Iterator[CaseResult | None]:
        """Run tasks in their order."""
        for task in tasks:
            yield self._work(study, task)


def run_study(
    study: Study,
    folder: Path | str,
    pool: Pool | None = None,
    *,
    retry: bool = False,
    progress: Progress | None = None,
) -> State:
    """Explain every case of a study that is not explained yet.

    Parameters
    ----------
    study
        What is wanted.
    folder
        Of the store; a run that was stopped goes on where it was.
    pool
        Where tasks run; default: in this process.
    retry
        Try again what failed before.
    progress
        Called at the start and after each case.

    Returns
    -------
    State
        How it ended.

    Raises
    ------
    OutputError
        If the folder holds another study (also: a model's weights have changed), or cannot be
        written. What was finished before is safe.
    ModelError
        If a model is not the study's.

    Notes
    -----
    A case whose files have changed since (name, size, time) is explained again. What finishes
    within a second is written together; of cases that take less than a second, and of all once
    the store has 20,000 blocks, what finishes within a hundredth of the time since the start
    (at most 5 minutes), so that files stay few. A killed process loses at most that.
    """
    store = Store.create(folder, study.plan(), study.cases_frame())
    left, state = _left(study, store, retry)
    if progress is not None:
        progress(state)
    sender = replace(study, cases=study.cases[:1])  # workers need no list of cases
    recorder = _Recorder(store)
    try:
        for result in (pool or Here()).results(sender, left):
            if result is None:
                recorder.write_if_due()
                continue
            recorder.take(result)
            is_done = result.run["status"] == DONE
            state = State(state.n_done + is_done, state.n_failed + (not is_done), state.n_left - 1)
            if progress is not None:
                progress(state)
    finally:
        recorder.flush()
    return state


def state_of(study: Study, store: Store) -> State:
    """Tell how far a study is."""
    return _left(study, store, retry=False)[1]


def _left(study: Study, store: Store, retry: bool) -> tuple[list[Task], State]:
    """Tasks that are left, and how far the study is."""
    runs = store.runs()
    columns = (runs[name].astype(str) for name in ("model", "method", "case", "status", "stamp"))
    known = {(m, k, c): (status, stamp) for m, k, c, status, stamp in zip(*columns, strict=True)}
    stamps = [(case, study.stamp(case), study.masks_there(case)) for case in study.cases]
    counts = {DONE: 0, FAILED: 0}
    left = []
    for model in study.models:
        for case, stamp, masks in stamps:
            for method in study.methods:
                status, before = known.get((model, method, case.name), ("", ""))
                if before == stamp and (status == DONE or (status == FAILED and not retry)):
                    counts[status] += 1
                else:
                    left.append(Task(case, model, method, stamp, masks))
    return left, State(counts[DONE], counts[FAILED], len(left))


def most_blocks(seconds: float) -> int:
    """Count the blocks that a run of so many seconds writes at most, of one model and method.

    Of quick cases; of slow ones up to `SLOW_BLOCKS` in all come on top.
    """
    growing, steady = FLUSH_S / FLUSH_PART, LONGEST_S / FLUSH_PART  # see _Recorder.write_if_due
    n = min(seconds, growing) / FLUSH_S
    n += math.log(min(max(seconds, growing), steady) / growing) / FLUSH_PART
    n += max(seconds - steady, 0) / LONGEST_S
    return math.ceil(n)


class _Recorder:
    """Writes results to a store, together those that come soon after each other.

    At most one block a second of each model and method: more would keep the driver busy.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._n_blocks = store.n_blocks()
        self._waiting: list[CaseResult] = []
        self._n_rows, self._is_slow = 0, False
        self._started = self._written = time.monotonic()

    def take(self, result: CaseResult) -> None:
        """Keep a result, and write what waits if it is time or much."""
        self._waiting.append(result)
        self._n_rows += len(result.regions)
        self._is_slow |= result.run["seconds"] > SLOW_S and self._n_blocks < SLOW_BLOCKS
        if len(self._waiting) >= FLUSH_CASES or self._n_rows >= FLUSH_ROWS:
            self.flush()
        else:
            self.write_if_due()

    def write_if_due(self) -> None:
        """Write what waits if it is time."""
        now = time.monotonic()
        longest = min(LONGEST_S, max(FLUSH_S, FLUSH_PART * (now - self._started)))
        if self._is_slow:
            longest = FLUSH_S
        if now - self._written >= longest:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting, self._n_rows, self._is_slow = self._waiting, [], 0, False
        if waiting:
            self._store.add(waiting)
            self._n_blocks += len({result.partition for result in waiting})
        self._written = time.monotonic()
