"""Run benchmarks and write RESULTS.json: ``make bench``, or ``python -m benchmarks memory``.

The exit code is 1 if a result misses its demand.
"""

from __future__ import annotations

import json
import platform
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    assess,
    classes,
    cohort,
    fills,
    instance,
    lesion,
    memory,
    scheduler,
    shapley,
    shortcuts,
)
from voxplain.records.provenance import package_versions

_MODULES = {
    "memory": memory,
    "lesion": lesion,
    "classes": classes,
    "shapley": shapley,
    "instance": instance,
    "assess": assess,
    "cohort": cohort,
    "scheduler": scheduler,
    "shortcuts": shortcuts,
    "fills": fills,
}
_OUT = Path(__file__).parent / "RESULTS.json"


def demands(results: dict[str, Any]) -> dict[str, bool]:
    """Compare what was measured with what is demanded."""
    met = {}
    if "memory" in results:
        met["extra memory at most 1/4 of the full graph's"] = (
            results["memory"]["memory_ratio"] <= 0.25
        )
        met["same gradient (L2) within 1e-5"] = results["memory"]["relative_error_l2"] <= 1e-5
    if "lesion" in results:
        met["lesion at least 8 times faster"] = results["lesion"]["speed_ratio"] >= 8
    if "speed_ratio" in results.get("classes", {}):
        met["all classes at least 3 times faster"] = results["classes"]["speed_ratio"] >= 3
        met["same region shares within 1e-4"] = (
            results["classes"]["largest_share_difference"] <= 1e-4
        )
    if "segments" in results.get("shapley", {}):
        met.update(_shapley_demands(results["shapley"]))
    if "instance" in results:
        met.update(_instance_demands(results["instance"]))
    if "pass_ratio" in results.get("assess", {}):
        met.update(_assess_demands(results["assess"]))
    if "cohort" in results:
        met["100,000 patients summarised and reported in 60 s"] = results["cohort"]["seconds"] <= 60
        met["and in 2 GB"] = results["cohort"]["peak_mib"] <= 2000
    if "fills" in results:
        found = results["fills"]["all players"]
        met["two learned fills agree more than simple fills do"] = found["learned"] > found["off"]
    if "shortcuts" in results:
        strongest = [
            row["auroc"]
            for row in results["shortcuts"]["curve"]
            if row["way"] == "study, region" and row["strength"] == 1
        ]
        met["strongest shortcuts of each kind found with AUROC 0.95"] = min(strongest) >= 0.95
    return met


def _assess_demands(found: dict[str, Any]) -> dict[str, bool]:
    return {
        "faithfulness of all methods and classes in 1/20 of Quantus' passes": (
            found["pass_ratio"] >= 20
        ),
        "and 1/10 of its time": found["time_ratio"] >= 10,
        "with the same values within 1e-3": found["largest_difference"] <= 1e-3,
    }


def _instance_demands(found: dict[str, Any]) -> dict[str, bool]:
    typical = found["one window"]
    return {
        "one of many lesions at least 10 times faster": typical["speed_ratio"] >= 10,
        "in at most 1/4 of the memory": typical["memory_ratio"] <= 0.25,
        "with the same maximum within 1e-6": typical["relative_error"] <= 1e-6,
        "at no more cost in a volume of twice the size": found["doubled"]["time_ratio"] <= 1.15,
    }


def _shapley_demands(found: dict[str, Any]) -> dict[str, bool]:
    segments, cubes = found["segments"], found["cubes"]
    return {
        "exact Shapley values in 1/50 of KernelShap's window passes": segments["pass_ratio"] >= 50,
        "and 1/30 of its time": segments["time_ratio"] >= 30,
        "and without an error": segments["exact_error"] <= 1e-5,
        "cubes at equal error in 1/20 of the time": (
            cubes["time_ratio_of_all_classes"] >= 20
            and cubes["own_relative_error"] <= cubes["kernel_shap_relative_error"]
        ),
        "memory at most twice that of a prediction": found["memory"]["memory_ratio"] <= 2,
    }


def main(names: list[str]) -> int:
    """Run the named benchmarks (all by default); earlier results of the others are kept."""
    results: dict[str, Any] = json.loads(_OUT.read_text()) if names and _OUT.exists() else {}
    results["machine"] = {
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "versions": package_versions(),
    }
    for name in names or _MODULES:
        print(f"{name} …", flush=True)
        results[name] = _MODULES[name].main()
        print(json.dumps(results[name], indent=2), flush=True)
    results["met"] = demands(results)
    print(json.dumps(results["met"], indent=2))
    _OUT.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written: {_OUT}")
    return 0 if all(results["met"].values()) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
