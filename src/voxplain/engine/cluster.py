"""Tasks on many processes or machines, through Dask."""

from __future__ import annotations

import itertools
import logging
import pickle
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import torch

from voxplain import __version__
from voxplain.engine.connection import CONFIG, connected, quiet, threads_of, version_asker
from voxplain.engine.study import Study
from voxplain.engine.work import Task, run_task
from voxplain.errors import ClusterError, VoxplainError
from voxplain.study.store import CaseResult, failed_run

if TYPE_CHECKING:
    from distributed import Client, Future

PATIENCE_S = 60.0
LOOK_S = 1.0
"""Seconds between two looks at which workers are there."""
AHEAD = 2
"""Tasks a worker: the one that runs, and the next."""

Work = Callable[[Study, Task], CaseResult]
Tell = Callable[[str], None]

_ALONE = threading.Lock()


@dataclass(frozen=True)
class _Killed:
    """A task that Dask gave up, for its worker died each time."""

    task: Task
    n_deaths: int

    def given_up(self) -> CaseResult:
        """Say so, after the second round."""
        task = self.task
        reason = (
            f"the worker died {2 * self.n_deaths} times on this case: most often for want of "
            "memory; give fewer --workers, a smaller --batch-size, or workers with more memory, "
            "and retry"
        )
        created = datetime.now(UTC).isoformat(timespec="microseconds")
        known = {"stamp": task.stamp, "version": __version__, "created": created}
        return CaseResult(failed_run(task.case.name, task.model, task.method, reason, **known))


class Cluster:
    """A pool of Dask workers; made by `local` or `at`, in a ``with``.

    Each worker process loads a model once and runs one task at a time, whatever its number of
    threads. A worker has one task waiting beside the one that runs; workers that join later are
    used. A case whose worker is lost is done by another. Where that happens more often than the
    scheduler allows, the case is tried again after all others, and only then given up: it may
    have been the neighbour that ended the worker.

    Parameters
    ----------
    client
        Connected.
    resources
        What a worker must have for each task, e.g. ``{"GPU": 1}``.
    threads
        Of torch in each worker; None leaves them.
    work
        What runs there; importable by name.
    patience_s
        How long to wait while there is no worker.
    tell
        Called with a line when there is something to wait for.
    """

    def __init__(
        self,
        client: Client,
        *,
        resources: Mapping[str, float] | None = None,
        threads: int | None = None,
        work: Work = run_task,
        patience_s: float = PATIENCE_S,
        tell: Tell | None = None,
    ) -> None:
        self._client = client
        self._resources = dict(resources or {})
        self._threads = threads
        self._work = work
        self._patience_s = patience_s
        self._tell = tell or _silent
        self._n_workers = 0
        self._looked = self._seen = -float("inf")

    @classmethod
    @contextmanager
    def local(
        cls, n_workers: int, *, threads: int | None = None, work: Work = run_task
    ) -> Iterator[Cluster]:
        """Start worker processes on this machine; end them on leaving.

        Parameters
        ----------
        n_workers
            1 or more.
        threads
            Of torch in each; default: the processors shared out, at least 1. Results are the
            same bit for bit at equal threads (and an equal batch size).
        work
            What runs there.

        Raises
        ------
        ClusterError
            If `n_workers` or `threads` is less than 1.

        Notes
        -----
        Processes are spawned: a script that calls this needs ``if __name__ == "__main__":``.
        The scheduler listens on 127.0.0.1 without a password: other users of the machine could
        reach it, see docs/how-to/many-machines.md.
        """
        import dask
        from distributed import Client, LocalCluster

        if n_workers < 1 or (threads is not None and threads < 1):
            raise ClusterError(f"expected 1 worker or more, got {n_workers} × {threads} threads")
        with quiet():
            with dask.config.set(CONFIG):
                cluster = LocalCluster(  # type: ignore[no-untyped-call]
                    n_workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    dashboard_address="127.0.0.1:0",  # None would open 8787
                    scheduler_kwargs={"dashboard": False},
                    silence_logs=logging.CRITICAL,
                )
            client = Client(cluster, set_as_default=False)  # type: ignore[no-untyped-call]
            with cluster, client:
                yield cls(client, threads=threads or threads_of(n_workers), work=work)

    @classmethod
    @contextmanager
    def at(
        cls,
        address: str,
        resources: Mapping[str, float] | None = None,
        *,
        threads: int | None = None,
        work: Work = run_task,
        patience_s: float = PATIENCE_S,
        tell: Tell | None = None,
    ) -> Iterator[Cluster]:
        """Use the workers of a Dask scheduler; leave it running.

        Parameters
        ----------
        address
            ``tcp://HOST:PORT``, or the scheduler's file (``….json``).
        resources, threads, work, patience_s, tell
            See the class.

        Raises
        ------
        ClusterError
            If no scheduler answers there, or no worker joins in time, or one has another
            voxplain.
        """
        with quiet(), connected(address) as client:
            pool = cls(
                client,
                resources=resources,
                threads=threads,
                work=work,
                patience_s=patience_s,
                tell=tell,
            )
            pool.wait()
            yield pool

    def wait(self) -> None:
        """Wait for a worker, and see that all have this voxplain.

        Raises
        ------
        ClusterError
            If none joins in time, or one has another version.
        """
        self._seen = time.monotonic()
        if not self._look():
            self._tell(
                f"waiting for a worker at {self._address} (up to {self._patience_s:.0f} s) …"
            )
        while not self._look():
            time.sleep(min(LOOK_S, self._patience_s / 4))
        found = self._client.run(version_asker())
        other = {at: version for at, version in found.items() if version != __version__}
        if other:
            told = ", ".join(f"{at} has {version or 'none'}" for at, version in other.items())
            raise ClusterError(
                f"this is voxplain {__version__}, and a worker has another: {told}; install the "
                "same everywhere and restart the workers"
            )

    def results(self, study: Study, tasks: Iterable[Task]) -> Iterator[CaseResult | None]:
        """Run tasks, in any order.

        Parameters
        ----------
        study
            Sent with each task; its list of cases is not needed.
        tasks
            Taken while there is room: 2 a worker.

        Yields
        ------
        CaseResult | None
            None where nothing has come for a second.

        Raises
        ------
        ClusterError
            If the scheduler, or every worker, is lost.
        ModelError
            If a worker has another model than the study's.
        """
        suspects = []
        for result in self._round(study, tasks, AHEAD):
            if isinstance(result, _Killed):
                suspects.append(result.task)
            else:
                yield result
        for result in self._round(study, suspects, 1):
            yield result.given_up() if isinstance(result, _Killed) else result

    def _round(
        self, study: Study, tasks: Iterable[Task], ahead: int
    ) -> Iterator[CaseResult | _Killed | None]:
        """Run tasks, so many a worker at a time."""
        arrived: queue.SimpleQueue[Future[Any]] = queue.SimpleQueue()
        running: dict[Any, tuple[Future[Any], Task]] = {}
        source = iter(tasks)
        is_more = True
        self._seen = time.monotonic()
        try:
            while is_more or running:
                room = ahead * self._look() - len(running)
                if is_more and room > 0:
                    taken = list(itertools.islice(source, room))
                    is_more = len(taken) == room
                    for task in taken:
                        future = self._submit(study, task)
                        running[future.key] = future, task
                        future.add_done_callback(arrived.put)  # type: ignore[no-untyped-call]
                if not running and not is_more:
                    return
                try:
                    future = arrived.get(timeout=LOOK_S)
                except queue.Empty:
                    yield None
                else:
                    _, task = running.pop(future.key)
                    yield self._result(future, task)
        finally:
            left = [future for future, _ in running.values()]
            if left and self._client.status == "running":
                with suppress(OSError, TimeoutError):  # what matters is the error that came before
                    self._client.cancel(left)  # type: ignore[no-untyped-call]

    def _submit(self, study: Study, task: Task) -> Future[Any]:
        arguments = self._work, study, task, self._threads, __version__
        return self._client.submit(
            _opener(),
            pickle.dumps((_on_worker, *arguments)),
            pure=False,
            resources=self._resources or None,
        )

    def _result(self, future: Future[Any], task: Task) -> CaseResult | _Killed:
        """Return what a task gave, or raise what it raised."""
        from concurrent.futures import CancelledError

        from distributed import KilledWorker

        try:
            result: CaseResult = future.result()
        except KilledWorker as error:
            return _Killed(task, error.allowed_failures + 1)
        except VoxplainError:
            raise
        except (CancelledError, OSError) as error:
            raise ClusterError(
                f"the scheduler at {self._address} was lost ({type(error).__name__}); what was "
                "finished is safe: start it and run again to go on"
            ) from error
        except Exception as error:
            raise ClusterError(
                f"a worker of {self._address} cannot run tasks: {type(error).__name__}: {error}; "
                "see that it has the same packages as this machine"
            ) from error
        return result

    def _look(self) -> int:
        """Count usable workers, at most once a second; raise if there were none for long."""
        now = time.monotonic()
        if now - self._looked >= min(LOOK_S, self._patience_s / 4) or not self._n_workers:
            self._looked = now
            self._n_workers = self._count()
        if self._n_workers:
            self._seen = now
        elif now - self._seen > self._patience_s:
            having = "".join(f" with {name}={n:g}" for name, n in self._resources.items())
            raise ClusterError(
                f"the scheduler at {self._address} had no worker{having} for "
                f"{self._patience_s:.0f} s; start some (dask worker {self._address} …), then run "
                "again: what was finished is safe"
            )
        return self._n_workers

    def _count(self) -> int:
        try:
            workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        except (OSError, TimeoutError) as error:
            raise ClusterError(
                f"the scheduler at {self._address} does not answer any more ({error}); what was "
                "finished is safe: start it and run again to go on"
            ) from error
        return sum(
            all(one["resources"].get(name, 0) >= n for name, n in self._resources.items())
            for one in workers
        )

    @property
    def _address(self) -> str:
        return str(self._client.scheduler.address) if self._client.scheduler else "its address"


def _on_worker(
    work: Work, study: Study, task: Task, threads: int | None, version: str
) -> CaseResult:
    """Run a task in a worker, one at a time: methods change a model while they run."""
    if version != __version__:
        raise ClusterError(
            f"a worker has voxplain {__version__}, and the study was started with {version}; "
            "install the same everywhere and restart the workers"
        )
    with _ALONE:
        if threads is not None:
            torch.set_num_threads(threads)
        return work(study, task)


def _opener() -> Callable[[bytes], CaseResult]:
    """Return a function that is sent as code: a scheduler reads tasks, and has no voxplain."""

    def run(sent: bytes) -> CaseResult:
        import pickle

        function, *arguments = pickle.loads(sent)  # noqa: S301 - Dask itself sends pickles
        result: CaseResult = function(*arguments)
        return result

    return run


def _silent(_: str) -> None:
    """Tell nobody."""
