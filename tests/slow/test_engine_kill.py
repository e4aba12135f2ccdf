"""A study that is killed at random moments and gone on with ends in the same table."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from tests.cohort_studies import rows_of, study
from tests.unit.test_engine_cluster import scheduler, worker  # noqa: F401 - a fixture

from voxplain.engine import run_study
from voxplain.engine.cluster import Cluster
from voxplain.engine.run import State
from voxplain.study.store import Store

ROOT = Path(__file__).parents[2]
RUN = """
import pickle, sys
from pathlib import Path
import torch
from voxplain.engine.run import Here, run_study
from tests.cohort_studies import slow_task

torch.set_num_threads(1)
study = pickle.loads(Path(sys.argv[1]).read_bytes())
print("ready", flush=True)
run_study(study, sys.argv[2], Here(slow_task))
"""


def kill_and_go_on(folder: Path, n_kills: int, n_cases: int) -> None:
    import pickle

    asked = study(folder, n_cases, n_classes=3)
    (folder / "study.pickle").write_bytes(pickle.dumps(asked))
    killed = folder / "killed"
    rng = np.random.default_rng(5)
    for _ in range(n_kills):
        process = subprocess.Popen(
            [sys.executable, "-c", RUN, str(folder / "study.pickle"), str(killed)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
        )
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0, 3))
        process.kill()
        process.wait()
        process.stdout.close()
        if killed.exists():
            for path in killed.rglob("*.parquet"):
                if not path.name.startswith("."):
                    pq.read_metadata(path)  # whole, or it would raise
    assert run_study(asked, killed) == State(n_cases, 0, 0)
    assert run_study(asked, folder / "whole") == State(n_cases, 0, 0)
    pd.testing.assert_frame_equal(rows_of(killed), rows_of(folder / "whole"), check_exact=True)
    runs = Store(killed).runs()
    assert not runs.duplicated(["model", "method", "case"]).any()
    assert len(runs) == n_cases


def test_killed_three_times(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, 3, 20)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_twenty_times(tmp_path: Path) -> None:
    kill_and_go_on(tmp_path, 20, 60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_forty_patients_three_ways(tmp_path: Path, scheduler) -> None:  # type: ignore[no-untyped-def] # noqa: F811
    asked = study(tmp_path, 40, n_classes=10)
    assert run_study(asked, tmp_path / "one") == State(40, 0, 0)
    with Cluster.local(2, threads=1) as pool:
        assert run_study(asked, tmp_path / "two", pool) == State(40, 0, 0)
    _, file = scheduler
    workers = [worker(file) for _ in range(2)]
    try:
        with Cluster.at(str(file), threads=1) as pool:
            assert run_study(asked, tmp_path / "apart", pool) == State(40, 0, 0)
    finally:
        for one in workers:
            one.kill()
            one.wait()
    expected = rows_of(tmp_path / "one")
    assert len(expected) == 40
    for other in ("two", "apart"):
        pd.testing.assert_frame_equal(expected, rows_of(tmp_path / other), check_exact=True)
