"""`train`: a recipe and a cohort become a bundle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from voxplain.data import Cohort
from voxplain.errors import TrainingError
from voxplain.records.provenance import package_versions
from voxplain.space import atomic_folder
from voxplain.train.bundle import Trained, write_bundle
from voxplain.train.cases import Cache, Prepared, Reader
from voxplain.train.crops import Crops
from voxplain.train.log import write_log
from voxplain.train.loop import Loop, Moment, Progress
from voxplain.train.planning import Plan, build_network, plan
from voxplain.train.processes import run_processes
from voxplain.train.ranks import Rank, check_gpus, joined
from voxplain.train.recipe import Recipe
from voxplain.train.recipe_file import recipe_values
from voxplain.train.split import Division, case_sha256
from voxplain.train.state import CHECKPOINT, State, read_state
from voxplain.train.validation import validate

FOLDER = "training"
RECORD = "record.json"


def train(
    recipe: Recipe,
    cohort: Cohort,
    out: Path | str,
    *,
    resume: bool = True,
    device: str = "auto",
    processes: int = 1,
    workers: int = 0,
    cache: Cache = "memory",
    progress: Progress | None = None,
) -> Trained:
    """Train a network and write it as a MONAI bundle.

    Parameters
    ----------
    recipe
        Every setting; see `voxplain.train.read_recipe`.
    cohort
        Images and labels; see `voxplain.data.read_data`.
    out
        Folder of the bundle. ``training/`` in it holds the state while it is trained.
    resume
        Continue what an interrupted training left in `out`; on a CPU the weights are then those
        of an uninterrupted training, to the last bit. False begins anew.
    device
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    processes
        Processes, each with a GPU of its own (``device="cpu"``: all on the CPU); they average
        their gradients. Under torchrun leave it at 1. A script that asks for several needs
        ``if __name__ == "__main__":``.
    workers
        Processes that prepare crops for each of them.
    cache
        Where prepared cases are kept: ``memory`` (as many as fit in half of what is free; the
        others are prepared again for every crop), a folder, or ``none``.
    progress
        Called after every step with a `Moment`.

    Returns
    -------
    Trained
        Also if the training was finished before.

    Raises
    ------
    TrainingError
        If recipe and data do not fit each other, `out` holds another training, the loss is not
        a number, or memory does not suffice.
    """
    if processes < 1:
        raise TrainingError(f"at least one process trains, got {processes}")
    if processes > 1 and device != "cpu":
        check_gpus(processes)
    planned = plan(recipe, cohort, processes)
    fixed = _Fixed(planned, _hashes(planned.division), Path(out), resume, device, workers, cache)
    if processes == 1:
        return _one(fixed, None, progress)
    run_processes(_one, fixed, processes, progress)
    return _read_record(fixed)


@dataclass(frozen=True)
class _Fixed:
    """What is the same in every process."""

    plan: Plan
    hashes: Mapping[str, tuple[str, ...]]
    out: Path
    resume: bool
    device: str
    workers: int
    cache: Cache

    @property
    def place(self) -> Path:
        return self.out / FOLDER


def _one(fixed: _Fixed, meeting: tuple[int, int, str] | None, progress: Progress | None) -> Trained:
    """Train as one of the processes."""
    with joined(fixed.device, meeting) as rank:
        return _train(fixed, rank, progress)


def _train(fixed: _Fixed, rank: Rank, progress: Progress | None) -> Trained:
    plan_, recipe = fixed.plan, fixed.plan.recipe
    if progress is not None and rank.is_first:
        progress(Moment(0, recipe.epochs, 0, 0, float("nan"), None, None, "reading"))
    identity = _identity(fixed, rank.n_ranks)
    if fixed.resume and (fixed.place / RECORD).is_file():
        return _finished(fixed, identity)
    if not fixed.resume and rank.is_first:
        for name in (RECORD, CHECKPOINT):
            (fixed.place / name).unlink(missing_ok=True)
    rank.wait()
    state = read_state(fixed.place, identity)
    class_names = plan_.joining.class_names
    torch.manual_seed(recipe.seed)
    network = build_network(recipe, len(plan_.channels), len(class_names))
    crops, kept = _datasets(fixed, rank)
    loop = Loop(network, crops, class_names, recipe, rank, fixed.workers)

    def save(now: State) -> None:
        if rank.is_first:
            now.write(fixed.place)
            write_log(fixed.place, now.rows, class_names)
        rank.wait()

    def measure(module: nn.Module, amp: torch.autocast) -> list[float | None]:
        return validate(module, kept, recipe, len(class_names), rank, amp)

    state = loop.run(state, measure, save, progress)
    trained = _trained(plan_, state, rank, identity)
    if rank.is_first:
        _write(fixed, trained, state)
    rank.wait()
    return trained


def _datasets(fixed: _Fixed, rank: Rank) -> tuple[Crops, Prepared]:
    """Training crops and validation cases."""
    plan_, recipe = fixed.plan, fixed.plan.recipe
    made = []
    parts = {"training": recipe.crop, "validation": None}
    for part, crop in parts.items():
        reader = Reader(recipe.input, plan_.joining, plan_.channels, crop)
        most = psutil.virtual_memory().available // 2 // rank.n_ranks
        cases = getattr(plan_.division, part)
        made.append(Prepared(cases, fixed.hashes[part], reader, fixed.cache, most))
    return Crops(made[0], recipe, len(plan_.joining.class_names)), made[1]


def _hashes(division: Division) -> dict[str, tuple[str, ...]]:
    parts = {"training": division.training, "validation": division.validation}
    return {part: tuple(map(case_sha256, cases)) for part, cases in parts.items()}


def _identity(fixed: _Fixed, n_ranks: int) -> dict[str, Any]:
    """Collect what must agree for a training to be continued, as plain values."""
    values = {
        "recipe": recipe_values(fixed.plan.recipe),
        "classes": list(fixed.plan.joining.class_names),
        "channels": list(fixed.plan.channels),
        "processes": n_ranks,
        "data_sha256": sha256(repr(fixed.hashes).encode()).hexdigest(),
    }
    return dict(json.loads(json.dumps(values)))


def _trained(plan_: Plan, state: State, rank: Rank, identity: Mapping[str, Any]) -> Trained:
    record = {
        **identity,
        "dice": state.best["dice"],
        "dice_of": state.best["dice_of"],
        "best_epoch": state.best["epoch"],
        "n_training": len(plan_.division.training),
        "n_validation": len(plan_.division.validation),
        "n_parameters": plan_.n_parameters,
        "seconds": round(sum(float(row["seconds"] or 0) for row in state.rows), 1),
        "device": rank.device.type,
        "versions": package_versions(),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    return _of_record(plan_, record)


def _of_record(plan_: Plan, record: Mapping[str, Any]) -> Trained:
    return Trained(
        plan_.recipe, plan_.channels, plan_.joining.class_names, record["dice"],
        record["dice_of"], record["best_epoch"], record,
    )  # fmt: skip


def _write(fixed: _Fixed, trained: Trained, state: State) -> None:
    with atomic_folder(fixed.out) as folder:
        write_bundle(folder, trained, state.best["network"])
        (folder / FOLDER).mkdir()
        write_log(folder / FOLDER, state.rows, trained.class_names)
        text = json.dumps(trained.record, indent=2, ensure_ascii=False) + "\n"
        (folder / FOLDER / RECORD).write_text(text, encoding="utf-8")
    (fixed.place / CHECKPOINT).unlink(missing_ok=True)


def _read_record(fixed: _Fixed) -> Trained:
    record = json.loads((fixed.place / RECORD).read_text(encoding="utf-8"))
    return _of_record(fixed.plan, record)


def _finished(fixed: _Fixed, identity: Mapping[str, Any]) -> Trained:
    """Return what was trained before, if it was trained with the same."""
    trained = _read_record(fixed)
    differing = [key for key in identity if trained.record.get(key) != identity[key]]
    if differing:
        raise TrainingError(
            f"{fixed.out} holds a finished training with other {', '.join(differing)}; begin anew "
            "with --fresh, or choose another --out"
        )
    return trained
