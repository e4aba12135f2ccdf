"""A tiny study on disk: a small network on images of 12 × 14 × 16 voxels, and work without one."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors.torch import save_file

from voxplain.attribution import SmoothGrad, method_of
from voxplain.data.case import Case
from voxplain.engine import ModelPlace, Study
from voxplain.engine.work import Task, run_task, sha256_of, study_names
from voxplain.inference.compute import Compute
from voxplain.models.network import build_network
from voxplain.records.region_table import COLUMNS
from voxplain.space.grid import Grid
from voxplain.space.nifti import write_nifti
from voxplain.study.store import CaseResult, Store, done_run

SHAPE = (12, 14, 16)
PLACE = "VOXPLAIN_TEST_MARKS"
"""Environment variable with the folder in which `killing` leaves its marks."""


def model_folder(folder: Path, n_classes: int = 4, seed: int = 0) -> Path:
    """Write a model card and random weights."""
    arguments = {
        "spatial_dims": 3, "in_channels": 1, "out_channels": n_classes, "channels": [4, 8],
        "strides": [2], "norm": "instance",
    }  # fmt: skip
    card = {
        "name": "tiny", "kind": "segmentation",
        "network": {"target": "monai.networks.nets.UNet", "arguments": arguments},
        "input": {"channels": ["ct"], "orientation": "RAS"},
        "window": {"size": [8, 8, 8], "overlap": 0.25}, "activation": "softmax",
        "classes": ["background", *(f"organ_{i}" for i in range(1, n_classes))],
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    module = build_network(card["network"]["target"], arguments, folder)
    save_file(module.state_dict(), folder / "weights.safetensors")
    (folder / "model.yaml").write_text(yaml.safe_dump(card))
    return folder


def cases(folder: Path, n_cases: int, n_classes: int = 4) -> list[Case]:
    """Write images and label maps; every second case says its sex."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = Grid(SHAPE, np.diag([1.0, 1.5, 2.0, 1.0]))
    found = []
    for i in range(n_cases):
        rng = np.random.default_rng(i)
        image = rng.standard_normal((1, *SHAPE)).astype(np.float32)
        labels = rng.integers(0, n_classes, (1, *SHAPE)).astype(np.uint8)
        path, truth = folder / f"c{i:03d}.nii.gz", folder / f"c{i:03d}_labels.nii.gz"
        write_nifti(path, image, grid, np.float32)
        write_nifti(truth, labels, grid, np.uint8)
        metadata = {"sex": "F" if i % 4 else "M"} if i % 2 == 0 else {}
        found.append(Case(f"c{i:03d}", (path,), truth, patient=f"p{i // 2}", metadata=metadata))
    return found


def study(folder: Path, n_cases: int, *, n_classes: int = 4, **changes: Any) -> Study:
    """Write a model and cases, and ask for every class of each."""
    place = ModelPlace(str(model_folder(folder / "model", n_classes)))
    model = place.load()
    answers, regions = study_names({"tiny": model})
    known: dict[str, Any] = {
        "methods": {"smoothgrad": SmoothGrad(n=2)},
        "labels": dict(enumerate(regions)),
        "compute": Compute(device="cpu", batch_size=1),
    } | changes
    return Study(
        {"tiny": place},
        cases(folder / "data", n_cases, n_classes),
        sha256={"tiny": sha256_of(model)},
        class_names=answers,
        region_names=regions,
        **known,
    )


def without_model(n_cases: int, n_regions: int = 17) -> Study:
    """Study whose cases have no files, for `trivial` and `killing`."""
    names = [f"r{i:02d}" for i in range(n_regions)]
    return Study(
        {"m": ModelPlace("nowhere")},
        [Case(f"case_{i:06d}", (Path(f"{i}.nii.gz"),), patient=f"p{i}") for i in range(n_cases)],
        {"gradient": method_of("gradient")},
        sha256={"m": "0" * 64},
        class_names=names,
        region_names=names,
    )


def trivial(study: Study, task: Task) -> CaseResult:
    """Region × region shares that depend on nothing but the case; no model is run."""
    names = list(study.region_names)
    n = len(names)
    draws = np.random.default_rng(sum(task.case.name.encode())).random((n, n))
    shares = draws / draws.sum(axis=1, keepdims=True)
    frame = pd.DataFrame(
        {
            "case": task.case.name, "model": task.model, "method": task.method,
            "target": np.repeat(names, n), "region": names * n, "channel": "ct",
            "share": shares.ravel(), "mean": shares.ravel(), "positive": shares.ravel(),
            "negative": 0.0, "n_voxels": 1000,
        }
    )[[*COLUMNS]]  # fmt: skip
    created = datetime.now(UTC).isoformat(timespec="microseconds")
    known = {"stamp": task.stamp, "created": created, "worker": str(os.getpid())}
    return CaseResult(done_run(task.case.name, task.model, task.method, **known), frame)


def slow_task(study: Study, task: Task) -> CaseResult:
    """Explain, at a tenth of a second or more a case."""
    time.sleep(0.1)
    return run_task(study, task)


def waiting(study: Study, task: Task) -> CaseResult:
    """Do nothing for a while, then as `trivial`."""
    time.sleep(0.05)
    return trivial(study, task)


def killing(study: Study, task: Task) -> CaseResult:
    """End the worker on ``case_000003`` the first time, and on ``case_000005`` every time."""
    mark = Path(os.environ[PLACE]) / task.case.name
    if task.case.name == "case_000005" or (
        task.case.name == "case_000003" and not mark.exists()
    ):  # fmt: skip
        mark.touch()
        os._exit(1)
    time.sleep(0.02)
    return trivial(study, task)


def rows_of(folder: Path) -> pd.DataFrame:
    """Every number that counts, of every table: a row a case, the same order each time."""
    store = Store(folder)
    columns: dict[str, Any] = {}
    for model, method in store.partitions():
        table = store.table(model, method, ("share", "mean", "positive", "negative", "n_voxels"))
        for value, array in table.values.items():
            names = (f"{value} {t} {r}" for t in table.targets for r in table.regions)
            flat = array.reshape(len(table), -1).T
            columns |= {
                f"{model} {method} {name}": pd.Series(numbers, table.cases.index)
                for name, numbers in zip(names, flat, strict=True)
            }
        for name in table.dice:
            columns[f"{model} {method} dice {name}"] = table.dice[name]
    return pd.DataFrame(columns)
