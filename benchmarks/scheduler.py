"""The scheduler's side of a large cohort: 100,000 cases without a model through the real engine.

Everything but the network is real: plan, tasks, Dask with two worker processes, results of
17 × 17 regions sent back, and the store. Run it alone with
``python -m benchmarks.scheduler 100000``.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil

from voxplain.attribution import method_of
from voxplain.data.case import Case
from voxplain.engine import ModelPlace, Study, run_study
from voxplain.engine.cluster import Cluster
from voxplain.engine.run import State
from voxplain.engine.work import Task
from voxplain.records.region_table import COLUMNS
from voxplain.study.store import CLASS_COLUMNS, CaseResult, Store, done_run

N_REGIONS = 17
N_CASES = 100_000
N_WORKERS = 2
_NAMES = [f"region_{i:02d}" for i in range(N_REGIONS)]


def cohort(n_cases: int) -> Study:
    """Return a study whose cases have no files and whose model is never loaded."""
    return Study(
        {"none": ModelPlace("nowhere")},
        [Case(f"case_{i:06d}", (Path(f"{i}.nii.gz"),), patient=f"p{i}") for i in range(n_cases)],
        {"gradient": method_of("gradient")},
        sha256={"none": "0" * 64},
        class_names=_NAMES,
        region_names=_NAMES,
    )


def without_model(study: Study, task: Task) -> CaseResult:
    """Return a result of the real shape with numbers from the case's name."""
    rng = np.random.default_rng(list(task.case.name.encode()))
    draws = rng.random((N_REGIONS, N_REGIONS))
    shares = (draws / draws.sum(axis=1, keepdims=True)).ravel()
    labels = {"case": task.case.name, "model": task.model, "method": task.method}
    regions = pd.DataFrame(
        {
            **labels,
            "target": np.repeat(_NAMES, N_REGIONS),
            "region": _NAMES * N_REGIONS,
            "channel": "ct",
            "share": shares,
            "mean": rng.random(len(shares)),
            "positive": rng.random(len(shares)),
            "negative": -rng.random(len(shares)),
            "n_voxels": np.tile(rng.integers(0, 10**6, N_REGIONS), N_REGIONS),
        }
    )[[*COLUMNS]]
    classes = pd.DataFrame({**labels, "class": _NAMES}).reindex(columns=[*CLASS_COLUMNS])
    classes["dice"] = rng.random(N_REGIONS)
    run = done_run(
        *labels.values(),
        stamp=task.stamp,
        created=datetime.now(UTC).isoformat(timespec="microseconds"),
    )
    return CaseResult(run, regions, classes)


def main(n_cases: int = N_CASES) -> dict[str, Any]:
    """Measure one run, and reading its store."""
    process = psutil.Process()
    study = cohort(n_cases)
    memory: dict[int, int] = {}

    def watch(state: State) -> None:
        if state.n_done in (n_cases // 100, n_cases):
            memory[state.n_done] = process.memory_info().rss

    with tempfile.TemporaryDirectory() as folder:
        with Cluster.local(N_WORKERS, threads=1, work=without_model) as pool:
            start = time.perf_counter()
            run_study(study, folder, pool, progress=watch)
            seconds = time.perf_counter() - start
        files = list(Path(folder).rglob("*.parquet"))
        n_bytes = sum(path.stat().st_size for path in files)
        store = Store(folder)
        start = time.perf_counter()
        store.runs()
        runs_s = time.perf_counter() - start
        start = time.perf_counter()
        table = store.table("none", "gradient")
        table_s = time.perf_counter() - start
    return {
        "n_cases": n_cases,
        "n_workers": N_WORKERS,
        "tasks_per_second": n_cases / seconds,
        "driver_mb": {n: rss / 2**20 for n, rss in memory.items()},
        "n_files": len(files),
        "bytes_per_case": n_bytes / n_cases,
        "runs_seconds": runs_s,
        "table_seconds": table_s,
        "n_rows": int(table.values["share"].size),
    }


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]) if len(sys.argv) > 1 else N_CASES), indent=1))
