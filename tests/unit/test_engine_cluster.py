"""A study on two processes, on a scheduler of its own, and through deaths of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd
import psutil
import pytest
from tests.cohort_studies import PLACE, killing, rows_of, study, trivial, waiting, without_model

from voxplain.engine import Study, run_study
from voxplain.engine.cluster import AHEAD, Cluster
from voxplain.engine.run import State
from voxplain.engine.work import Task
from voxplain.errors import ClusterError, ModelError
from voxplain.study.store import Store

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two() -> Iterator[Cluster]:
    with Cluster.local(2, threads=1) as pool:
        yield pool


def tasks_of(asked: Study) -> list[Task]:
    return [Task(case, "m", "gradient", asked.stamp(case), ()) for case in asked.cases]


def test_two_workers_give_the_same_table(two: Cluster, tmp_path: Path) -> None:
    asked = study(tmp_path, 6)
    assert run_study(asked, tmp_path / "one") == State(6, 0, 0)
    assert run_study(asked, tmp_path / "two", two) == State(6, 0, 0)
    pd.testing.assert_frame_equal(
        rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), check_exact=True
    )
    runs = Store(tmp_path / "two").runs()
    assert runs["worker"].nunique() == 2
    assert f":{os.getpid()}" not in "".join(runs["worker"])


def test_another_model_on_a_worker_stops_the_run(two: Cluster, tmp_path: Path) -> None:
    asked = replace(study(tmp_path, 2), sha256={"tiny": "0" * 64})
    with pytest.raises(ModelError, match="are not those that the study began with"):
        run_study(asked, tmp_path / "s", two)


def test_work_in_flight_is_bounded(two: Cluster) -> None:
    asked = without_model(60, 2)
    n_taken = 0

    def counted() -> Iterator[Task]:
        nonlocal n_taken
        for task in tasks_of(asked):
            n_taken += 1
            yield task

    quick = Cluster(two._client, work=trivial)
    ahead, n_results = [], 0
    for result in quick.results(asked, counted()):
        n_results += result is not None
        ahead.append(n_taken - n_results)
    assert n_results == 60
    assert max(ahead) <= 2 * AHEAD
    # a run that is left takes its tasks back
    run = quick.results(asked, counted())
    next(run)
    run.close()  # type: ignore[attr-defined]
    assert n_taken <= 60 + 1 + 2 * AHEAD


def test_a_lost_workers_case_is_done_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv(PLACE, str(marks))
    asked = without_model(10, 3)
    with Cluster.local(2, threads=1, work=killing) as pool:
        assert run_study(asked, tmp_path / "s", pool) == State(9, 1, 0)
    runs = Store(tmp_path / "s").runs().set_index("case")
    assert runs.loc["case_000003", "status"] == "done"
    assert (marks / "case_000003").exists()
    assert runs.loc["case_000005", "status"] == "failed"
    assert "the worker died 4 times on this case" in runs.loc["case_000005", "reason"]


def start(*command: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", *command],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.fixture
def scheduler(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    file = tmp_path / "scheduler.json"
    process = start(
        "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0",
        "--no-dashboard", "--scheduler-file", str(file),
    )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not file.exists():
            assert time.monotonic() < until, "the scheduler did not start"
            time.sleep(0.1)
        yield process, file
    finally:
        process.kill()
        process.wait()


def worker(file: Path, *options: str) -> subprocess.Popen[bytes]:
    return start(
        "distributed.cli.dask_worker", "--scheduler-file", str(file), "--nthreads", "1",
        "--no-nanny", "--death-timeout", "20", "--no-dashboard",
        "--local-directory", str(file.parent), *options,
    )  # fmt: skip


def test_a_scheduler_of_its_own(
    scheduler: tuple[subprocess.Popen[bytes], Path], tmp_path: Path
) -> None:
    _, file = scheduler
    told: list[str] = []
    with (
        pytest.raises(ClusterError, match="had no worker with GPU=1 for 1 s"),
        Cluster.at(str(file), {"GPU": 1}, patience_s=1, tell=told.append),
    ):
        pass
    assert told[0].startswith("waiting for a worker at tcp://127.0.0.1:")
    asked = study(tmp_path, 6)
    run_study(asked, tmp_path / "one")
    workers = [worker(file, "--resources", "GPU=1") for _ in range(2)]
    try:
        with Cluster.at(str(file), {"GPU": 1}, threads=1) as pool:
            assert run_study(asked, tmp_path / "two", pool) == State(6, 0, 0)
        pd.testing.assert_frame_equal(
            rows_of(tmp_path / "one"), rows_of(tmp_path / "two"), check_exact=True
        )
        # both are there still, and one is killed in the midst of its work
        slow = without_model(12, 2)
        with Cluster.at(str(file), threads=1, work=waiting) as pool:
            n = 0
            for result in pool.results(slow, tasks_of(slow)):
                n += result is not None
                if n == 2:
                    workers[0].kill()
            assert n == 12
            # and then the other: there is nobody left
            pool._patience_s = 1
            workers[1].kill()
            with pytest.raises(ClusterError, match="had no worker for 1 s"):
                list(pool.results(slow, tasks_of(slow)))
    finally:
        for one in workers:
            one.kill()
            one.wait()


def test_a_lost_scheduler_is_told(scheduler: tuple[subprocess.Popen[bytes], Path]) -> None:
    process, file = scheduler
    one = worker(file)
    try:
        asked = without_model(200, 2)
        with Cluster.at(str(file), threads=1, work=waiting) as pool:
            results = pool.results(asked, tasks_of(asked))
            next(results)
            process.kill()
            with pytest.raises(ClusterError, match=r"was lost|does not answer"):
                list(results)
    finally:
        one.kill()
        one.wait()


def test_no_scheduler_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxplain.engine.connection.CONNECT_S", 0.5)
    for address, words in (
        ("tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1"),
        (str(tmp_path / "no.json"), "no scheduler file"),
    ):
        with pytest.raises(ClusterError, match=words), Cluster.at(address):
            pass


def test_numbers_of_workers() -> None:
    with pytest.raises(ClusterError, match="1 worker or more, got 0"), Cluster.local(0):
        pass


_LEFT = textwrap.dedent(
    """
    import sys, time
    from tests.cohort_studies import waiting, without_model
    from voxplain.engine.cluster import Cluster
    from voxplain.engine.run import run_study

    def progress(state):
        print(state.n_done, flush=True)

    if __name__ == "__main__":
        with Cluster.local(2, threads=1, work=waiting) as pool:
            run_study(without_model(1000, 2), sys.argv[1], pool, progress=progress)
    """
)


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_LEFT)
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path / "s")],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        while (line := process.stdout.readline()) and int(line) < 4:
            pass
        children = psutil.Process(process.pid).children(recursive=True)
        assert len(children) >= 2
        if how == signal.SIGINT:
            os.killpg(process.pid, how)  # as a terminal does
        else:
            process.send_signal(how)
        process.wait(60)
        assert process.stderr is not None
        said = process.stderr.read().decode()
        assert "distributed" not in said or how == signal.SIGINT
        if how == signal.SIGINT:
            assert said.rstrip().endswith("KeyboardInterrupt"), said
    finally:
        process.kill()
        process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    if how == signal.SIGINT:  # what came is written before the end
        assert len(Store(tmp_path / "s").runs()) >= 4
