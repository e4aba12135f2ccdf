"""A cohort of 100,000 patients: 17 targets × 17 regions from a wide table into statistics.

A synthetic table in Agg²Exp's style (shares of a Dirichlet distribution, means, Dice, age and sex),
imported as a study, then read. Each step runs in a process of its own, which tells its seconds,
reading what it needs included, and its peak resident memory.

``--quick``: 2,000 patients.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from pyarrow import csv

from voxplain.records.cohort_table import CohortTable
from voxplain.study.store import Store
from voxplain.study.wide_table import import_wide

N_CASES, N_QUICK = 100_000, 2_000
CLASSES = (
    "background", "aorta", "lung_upper_lobe_left", "lung_lower_lobe_left", "lung_upper_lobe_right",
    "lung_middle_lobe_right", "lung_lower_lobe_right", "trachea", "heart", "pulmonary_vein",
    "thyroid_gland", "ribs", "vertebraes", "autochthon_left", "autochthon_right", "sternum",
    "costal_cartilages",
)  # fmt: skip
_CHUNK = 5_000


def make_table(folder: Path, n_cases: int) -> None:
    """Write ``wide.csv``: a row a patient, 3 % of the maps absent."""
    rng = np.random.default_rng(0)
    weights = rng.gamma(0.5, size=(len(CLASSES), len(CLASSES))) + 3 * np.eye(len(CLASSES)) + 0.05
    n = len(CLASSES)
    names = [f"{a}_explanation_in_{b}_{end}" for a in CLASSES for b in CLASSES
             for end in ("mass", "mean")]  # fmt: skip
    with (folder / "wide.csv").open("wb") as stream:
        for start in range(0, n_cases, _CHUNK):
            size = min(_CHUNK, n_cases - start)
            shares = rng.gamma(np.broadcast_to(4 * weights, (size, n, n)))
            shares /= shares.sum(axis=2, keepdims=True)
            shares[rng.random((size, n)) < 0.03] = np.nan
            both = np.stack([shares, shares * 1e-3], axis=3).reshape(size, -1)
            dice = 1 - rng.beta(1, 9, (size, n))
            first = pd.DataFrame({
                "patient": [f"p{i:06d}" for i in range(start, start + size)],
                "age": rng.integers(18, 95, size), "sex": rng.choice(["F", "M"], size),
            })  # fmt: skip
            numbers = pd.DataFrame(np.hstack([both, dice]).astype(np.float32),
                                   columns=[*names, *(f"{c}_dice" for c in CLASSES)])  # fmt: skip
            rows = pa.Table.from_pandas(pd.concat([first, numbers], axis=1))
            csv.write_csv(rows, stream, csv.WriteOptions(include_header=start == 0))


def import_table(folder: Path, n_cases: int) -> None:
    """Import it as a study."""
    store = import_wide(folder / "wide.csv", folder / "study")
    assert len(store.cases()) == n_cases


def load_table(folder: Path, n_cases: int) -> None:
    """Read the shares."""
    table = read(folder)
    assert table.values["share"].shape == (n_cases, len(CLASSES), len(CLASSES))


def report(folder: Path, n_cases: int) -> None:
    """Summarise and write the page: what ``voxplain study report`` does, reading included."""
    from voxplain.cli.study_report import report_job

    report_job(
        folder / "study", folder / "page", against=None, reference=None, preset="default",
        detector=None, alpha=0.05, min_group=5, n_boot=1000, seed=0, is_quiet=True,
    )  # fmt: skip
    assert len(pd.read_csv(folder / "page" / "importance.csv")) == len(CLASSES) ** 2
    assert n_cases > 0


def read(folder: Path) -> CohortTable:
    """Read the study's only table."""
    store = Store(folder / "study")
    return store.table(*store.partitions()[0])


# in the order in which they run; the first one only makes the input
STEPS: dict[str, Callable[[Path, int], None]] = {
    "make": make_table,
    "import": import_table,
    "load": load_table,
    "report": report,
}


def measure(name: str, folder: Path, n_cases: int) -> None:
    """Run a step in this process and print what it took."""
    start, start_cpu = time.perf_counter(), time.process_time()
    STEPS[name](folder, n_cases)
    told = {
        "seconds": time.perf_counter() - start,
        "cpu_seconds": time.process_time() - start_cpu,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10,
    }
    print(json.dumps(told))


def main(n_cases: int = N_CASES) -> dict[str, Any]:
    """Run every step."""
    results: dict[str, Any] = {"n_cases": n_cases, "n_targets": len(CLASSES)}
    with tempfile.TemporaryDirectory() as folder:
        for name in STEPS:
            command = [sys.executable, "-m", "benchmarks.cohort", "--step", name, folder,
                       str(n_cases)]  # fmt: skip
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)  # noqa: S603
            results[name] = json.loads(printed.stdout.splitlines()[-1])
            print(f"  {name}: {results[name]}", flush=True)
        results["csv_mib"] = (Path(folder) / "wide.csv").stat().st_size / 2**20
        files = (Path(folder) / "study").rglob("*.parquet")
        results["store_mib"] = sum(file.stat().st_size for file in files) / 2**20
    results["seconds"] = results["report"]["seconds"]
    results["peak_mib"] = max(results[name]["peak_mib"] for name in STEPS if name != "make")
    return results


def quick() -> dict[str, Any]:
    """Run every step with few patients."""
    return main(N_QUICK)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--step", nargs=3, metavar=("NAME", "FOLDER", "N"))
    asked = parser.parse_args()
    if asked.step:
        measure(asked.step[0], Path(asked.step[1]), int(asked.step[2]))
    else:
        print(json.dumps(quick() if asked.quick else main(), indent=2))
