"""Run every benchmark and write RESULTS.json: ``make bench``."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import torch

from benchmarks import classes, lesion, memory
from voxplain.records.provenance import package_versions


def main() -> None:
    """Run and write."""
    results = {
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "versions": package_versions(),
        }
    }
    for module in (memory, lesion, classes):
        print(f"{module.__name__} …", flush=True)
        results[module.__name__.removeprefix("benchmarks.")] = module.main()
        print(json.dumps(results[module.__name__.removeprefix("benchmarks.")], indent=2))
    out = Path(__file__).parent / "RESULTS.json"
    out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written: {out}")


if __name__ == "__main__":
    main()
